package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// paid is one payment of an answer.
type paid struct {
	ID            uuid.UUID `json:"id"`
	ReservationID uuid.UUID `json:"reservation_id"`
	Status        string    `json:"status"`
	EventID       uuid.UUID `json:"event_id"`
	Failure       *struct {
		Code string `json:"code"`
	} `json:"failure"`
}

// outcome is the status, and the code of a failure behind it.
func (p paid) outcome() string {
	if p.Failure != nil {
		return p.Status + " " + p.Failure.Code
	}
	return p.Status
}

// order is one request.
type order struct {
	user         uuid.UUID
	reservations []uuid.UUID
}

// payer posts payments as a careful client does: with an Idempotency-Key, again
// and again until there is an answer.
type payer struct {
	url  string
	http *http.Client

	again    atomic.Int64 // requests without an answer
	replayed atomic.Int64 // answers to a request that had been committed before
}

// errAgain is an answer after which the same request may be sent again.
var errAgain = errors.New("no answer yet")

// pay returns the payments of the 201, and its body.
func (p *payer) pay(ctx context.Context, key string, o order) ([]paid, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		payments, body, err := p.payOnce(ctx, key, o)
		if !errors.Is(err, errAgain) {
			return payments, body, err
		}
		p.again.Add(1)
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, errors.Join(err, ctx.Err())
		}
	}
}

func (p *payer) payOnce(ctx context.Context, key string, o order) ([]paid, []byte, error) {
	content, err := json.Marshal(map[string]any{"user_id": o.user, "reservation_ids": o.reservations})
	if err != nil {
		return nil, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/v1/payments", bytes.NewReader(content))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	response, err := p.http.Do(request)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errAgain, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errAgain, err)
	}
	switch {
	case response.StatusCode == http.StatusConflict, response.StatusCode == http.StatusTooManyRequests, response.StatusCode >= 500:
		return nil, nil, fmt.Errorf("%w: %s: %s", errAgain, response.Status, body)
	case response.StatusCode != http.StatusCreated:
		return nil, nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	if response.Header.Get("Idempotency-Replayed") == "true" {
		p.replayed.Add(1)
	}
	var answer struct {
		Payments []paid `json:"payments"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(answer.Payments) != len(o.reservations) {
		return nil, nil, fmt.Errorf("%d payments answer %d reservations", len(answer.Payments), len(o.reservations))
	}
	return answer.Payments, body, nil
}
