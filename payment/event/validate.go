package event

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// validate returns all that breaks the contract of the type.
func (p Payment) validate(eventType string) error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	check(isUUID(p.PaymentID), "payment_id %q is no UUID", p.PaymentID)
	check(isUUID(p.ReservationID), "reservation_id %q is no UUID", p.ReservationID)
	check(isUUID(p.UserID), "user_id %q is no UUID", p.UserID)
	check(p.Amount.Value > 0 && p.Amount.Value <= MaxValue, "amount.value %d is not within 1 and 2^53-1", p.Amount.Value)
	check(isCurrency(p.Amount.Currency), "amount.currency %q is no currency code", p.Amount.Currency)
	year := p.ExecutedAt.UTC().Year()
	check(!p.ExecutedAt.IsZero() && year >= 1 && year <= 9999, "executed_at %s is no time of RFC 3339", p.ExecutedAt)
	if eventType == TypeCompleted {
		check(p.Status == StatusCompleted, "status %q in %s", p.Status, eventType)
		check(p.FailureCode == "", "failure_code %q in %s", p.FailureCode, eventType)
	} else {
		check(p.Status == StatusFailed, "status %q in %s", p.Status, eventType)
		check(slices.Contains(FailureCodes(), p.FailureCode), "failure_code %q is not in the list", p.FailureCode)
	}
	return errors.Join(problems...)
}

// isUUID accepts the one form that the service writes: 8-4-4-4-12, lower case.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return false
		}
	}
	return true
}

func isCurrency(s string) bool {
	return len(s) == 3 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
