package payment

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Call is what the idempotency of a request hangs on.
type Call struct {
	Client string // name of the API key, or empty where none is needed
	Key    string // Idempotency-Key; empty: the request is not protected
	Method string
	Path   string
	Body   []byte            // canonical, so that white space and the order of fields do not matter
	Trace  map[string]string // headers for the outbox
}

// fingerprint tells requests of one key apart.
func (c Call) fingerprint() []byte {
	sum := sha256.Sum256(append([]byte(c.Method+"\n"+c.Path+"\n"), c.Body...))
	return sum[:]
}

// Answer is the stored part of a response.
type Answer struct {
	Status   int
	Location string
	Body     []byte
	Replayed bool // it was given before
}

// MaxKeyBytes is the length of the longest Idempotency-Key.
const MaxKeyBytes = 255

// parseKey reads the header: bare, or quoted as a structured-field string. No
// header is the empty key.
func parseKey(header http.Header) (string, error) {
	values := header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", keyInvalid("The header is there more than once.")
	}
	key := values[0]
	if strings.HasPrefix(key, `"`) {
		var ok bool
		if key, ok = unquote(key); !ok {
			return "", keyInvalid("The quotes do not match.")
		}
	}
	if key == "" || len(key) > MaxKeyBytes || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", keyInvalid("A key is 1 to 255 visible ASCII characters.")
	}
	return key, nil
}

// unquote reads a string of RFC 9651: a backslash stands only before a quote or
// a backslash.
func unquote(s string) (string, bool) {
	var text strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return text.String(), i == len(s)-1
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		text.WriteByte(s[i])
	}
	return "", false
}

// answerOnce does the work of a request unless its key has an answer. Work and
// answer are one transaction; an error stores nothing, so that a corrected
// request may use the key again.
func (s *Service) answerOnce(ctx context.Context, call Call, work func(ctx context.Context, tx pgx.Tx) (Answer, error)) (Answer, error) {
	var answer Answer
	err := s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		answer = Answer{}
		if call.Key == "" {
			var err error
			answer, err = work(ctx, tx)
			return err
		}
		stored, err := s.claim(ctx, tx, call)
		if err != nil {
			return err
		}
		if stored != nil {
			answer = *stored
			return nil
		}
		if answer, err = work(ctx, tx); err != nil {
			return err
		}
		return storeAnswer(ctx, tx, call, answer)
	})
	if call.Key != "" {
		s.countClaim(answer, err)
	}
	if err != nil {
		return Answer{}, err
	}
	return answer, nil
}

// claim makes the key this transaction's, or returns the answer that it has.
// While another transaction holds the key it waits, at most lock_timeout: after
// a commit there is an answer, after a rollback the key is free.
func (s *Service) claim(ctx context.Context, tx pgx.Tx, call Call) (*Answer, error) {
	tag, err := tx.Exec(ctx, `
		INSERT INTO payment.idempotency_keys AS k (client, key, fingerprint, expires_at) VALUES ($1, $2, $3, now() + $4)
		ON CONFLICT (client, key) DO UPDATE
			SET fingerprint = excluded.fingerprint, status = NULL, location = NULL, body = NULL, created_at = now(), expires_at = excluded.expires_at
			WHERE k.expires_at <= now()`,
		call.Client, call.Key, call.fingerprint(), s.keyRetention)
	if sqlState(err) == sqlLockNotAvailable {
		return nil, keyInProgress(time.Second)
	}
	if err != nil {
		return nil, fmt.Errorf("claim idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return nil, nil
	}
	var fingerprint []byte
	stored := &Answer{Replayed: true}
	err = tx.QueryRow(ctx, `SELECT fingerprint, status, coalesce(location, ''), body FROM payment.idempotency_keys WHERE client = $1 AND key = $2`, call.Client, call.Key).
		Scan(&fingerprint, &stored.Status, &stored.Location, &stored.Body)
	if errors.Is(err, pgx.ErrNoRows) { // it expired between the two statements
		return nil, keyInProgress(time.Second)
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer of an idempotency key: %w", err)
	}
	if string(fingerprint) != string(call.fingerprint()) {
		return nil, keyReused()
	}
	return stored, nil
}

func storeAnswer(ctx context.Context, tx pgx.Tx, call Call, answer Answer) error {
	tag, err := tx.Exec(ctx, `UPDATE payment.idempotency_keys SET status = $3, location = nullif($4, ''), body = $5 WHERE client = $1 AND key = $2`,
		call.Client, call.Key, answer.Status, answer.Location, answer.Body)
	if err != nil {
		return fmt.Errorf("store the answer: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("store the answer: %d rows of a claimed key", tag.RowsAffected())
	}
	return nil
}

func (s *Service) countClaim(answer Answer, err error) {
	var outcome string
	problem, _ := errors.AsType[*Problem](err)
	switch {
	case err == nil && answer.Replayed:
		outcome = idempotencyReplayed
	case err == nil:
		outcome = idempotencyNew
	case problem != nil && problem.Code == keyReused().Code:
		outcome = idempotencyMismatch
	case problem != nil && problem.Code == keyInProgress(0).Code:
		outcome = idempotencyInProgress
	default:
		return // nothing was decided about the key
	}
	s.metrics.idempotency.WithLabelValues(outcome).Inc()
}

// sweepRows bounds one clean-up statement, so that it never holds many locks.
const sweepRows = 1000

// SweepKeys deletes keys whose time is over and returns how many.
func (s *Service) SweepKeys(ctx context.Context) (int64, error) {
	for swept := int64(0); ; {
		tag, err := s.pool.Exec(ctx, `
			DELETE FROM payment.idempotency_keys WHERE (client, key) IN (
				SELECT client, key FROM payment.idempotency_keys WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)`, sweepRows)
		if err != nil {
			return swept, fmt.Errorf("sweep idempotency keys: %w", err)
		}
		swept += tag.RowsAffected()
		if tag.RowsAffected() < sweepRows {
			return swept, nil
		}
	}
}

// RunSweep sweeps at once and then every interval until ctx ends. It returns nil:
// what could not be swept now is swept later.
func (s *Service) RunSweep(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if swept, err := s.SweepKeys(ctx); err != nil && ctx.Err() == nil {
			s.logger.Warn("idempotency keys were not swept", keyError, err)
		} else if swept > 0 {
			s.logger.Info("expired idempotency keys are deleted", keyRows, swept)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
