package main

import (
	"fmt"
	"slices"
)

// spread is a figure over several runs.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf takes one figure of each run; no run gives zeros.
func spreadOf[E any](runs []E, figure func(E) float64) spread {
	values := make([]float64, 0, len(runs))
	for _, run := range runs {
		values = append(values, figure(run))
	}
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	n := len(values)
	return spread{Median: (values[(n-1)/2] + values[n/2]) / 2, Min: values[0], Max: values[n-1]}
}

// text prints with as many decimals; 0 is what is not known, a dash.
func (s spread) text(decimals int) string {
	if s == (spread{}) {
		return "-"
	}
	return s.number(decimals)
}

// number is text where 0 is a figure.
func (s spread) number(decimals int) string {
	if s.Min == s.Max {
		return fmt.Sprintf("%.*f", decimals, s.Median)
	}
	return fmt.Sprintf("%.*f (%.*f-%.*f)", decimals, s.Median, decimals, s.Min, decimals, s.Max)
}

// grouped collects what has the same key, and returns the keys in the order in
// which they came first.
func grouped[E any, K comparable](all []E, key func(E) K) (keys []K, byKey map[K][]E) {
	byKey = map[K][]E{}
	for _, element := range all {
		k := key(element)
		if _, known := byKey[k]; !known {
			keys = append(keys, k)
		}
		byKey[k] = append(byKey[k], element)
	}
	return keys, byKey
}
