package notifier

import (
	"strconv"
	"strings"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// decimalsOf are the currencies of ISO 4217 whose minor unit is not a hundredth.
var decimalsOf = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0,
	"RWF": 0, "UGX": 0, "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// formatAmount writes minor units as people read them: 1,234.56 EUR.
func formatAmount(amount event.Amount) string {
	decimals, ok := decimalsOf[amount.Currency]
	if !ok {
		decimals = 2
	}
	sign, digits := "", strconv.FormatInt(amount.Value, 10)
	if rest, negative := strings.CutPrefix(digits, "-"); negative {
		sign, digits = "-", rest
	}
	if missing := decimals + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	whole, fraction := digits[:len(digits)-decimals], digits[len(digits)-decimals:]
	var b strings.Builder
	b.WriteString(sign)
	for i := range len(whole) {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteByte(whole[i])
	}
	if decimals > 0 {
		b.WriteString("." + fraction)
	}
	return b.String() + " " + amount.Currency
}
