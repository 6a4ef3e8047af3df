package nemesis

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestADeckGivesEveryCardBeforeAnyAgain(t *testing.T) {
	cards := []int{1, 2, 3, 4, 5}
	d := deck[int]{rng: rand.New(rand.NewPCG(1, 1)), cards: cards}
	var orders [][]int
	for range 20 {
		var round []int
		for range cards {
			round = append(round, d.draw())
		}
		orders = append(orders, slices.Clone(round))
		if slices.Sort(round); !slices.Equal(round, cards) {
			t.Fatalf("a round gave %v", round)
		}
	}
	if !slices.ContainsFunc(orders, func(order []int) bool { return !slices.Equal(order, orders[0]) }) {
		t.Error("every round has the same order")
	}
	again := deck[int]{rng: rand.New(rand.NewPCG(1, 1)), cards: cards}
	for _, want := range slices.Concat(orders...) {
		if got := again.draw(); got != want {
			t.Fatal("the same seed gives another order")
		}
	}
}
