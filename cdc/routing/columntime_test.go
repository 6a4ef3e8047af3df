package routing

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseColumnTime(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"2026-01-02 03:04:05+00", "2026-01-02T03:04:05Z"},
		{"2026-01-02 03:04:05.1+00", "2026-01-02T03:04:05.1Z"},
		{"2026-01-02 03:04:05.678901+00", "2026-01-02T03:04:05.678901Z"},
		{"2026-01-02 03:04:05", "2026-01-02T03:04:05Z"},
		{"2026-01-02", "2026-01-02T00:00:00Z"},
		{"2026-01-02 03:04:05+09", "2026-01-01T18:04:05Z"},
		{"2026-01-02 03:04:05-03:30", "2026-01-02T06:34:05Z"},
		{"1890-01-01 00:00:00+00:53:28", "1889-12-31T23:06:32Z"},
		{"0001-01-01 00:00:00+00", "0001-01-01T00:00:00Z"},
		{"9999-12-31 23:59:59.999999+00", "9999-12-31T23:59:59.999999Z"},
		{"2024-02-29 00:00:00+00", "2024-02-29T00:00:00Z"},
	} {
		got, err := parseColumnTime([]byte(test.text))
		if err != nil || got.Format(time.RFC3339Nano) != test.want {
			t.Errorf("%s: got %s, %v, want %s", test.text, got.Format(time.RFC3339Nano), err, test.want)
		}
	}
	for _, text := range []string{
		"", "infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "10000-01-01 00:00:00+00", "0000-01-01", "2026-02-30", "2026-13-01",
		"2026-01-02T03:04:05Z", "2026-01-02 03:04", "2026-01-02 03:04:05.+00", "2026-01-02 03:04:05 ", "2026-01-02 24:00:00", "9999-12-31 23:59:59-01", "02.01.2026 03:04:05",
	} {
		if got, err := parseColumnTime([]byte(text)); err == nil {
			t.Errorf("%q: got %s, want an error", text, got)
		}
	}
}

func TestParseColumnTimeReadsWhatPostgresPrints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		micros := rapid.Int64Range(-62135596800000000, 253402300799999999).Draw(t, "microseconds")
		want := time.UnixMicro(micros).UTC()
		got, err := parseColumnTime([]byte(want.Format("2006-01-02 15:04:05.999999+00")))
		if err != nil || !got.Equal(want) {
			t.Fatalf("got %s, %v, want %s", got, err, want)
		}
	})
}

// A reader that remembers the last second reads everything as a fresh one does.
func TestColumnTimesRemembersNothingWrong(t *testing.T) {
	digit := rapid.RuneFrom([]rune("01259"))
	text := rapid.OneOf(
		rapid.SampledFrom([]string{"2026-01-02", "2026-01-02 03:04:05", "2026-01-02 03:04:05.", "2026-01-02 03:04:05.5", "2026-01-02 03:04:06", "2026-01-02 03:04:05+00",
			"2026-01-02 03:04:05.123456-01", "2026-01-02 03:04:059", "0001-01-01 00:00:00", "0001-01-01 00:00:00+01", "9999-12-31 23:59:59-01", "2026-01-02 03:04:05 BC", ""}),
		rapid.Custom(func(t *rapid.T) string {
			return "2026-01-02 03:04:0" + string(digit.Draw(t, "digit")) + rapid.StringMatching(`(\.[0-9]{1,6})?([+-]0[0-9](:30)?)?`).Draw(t, "rest")
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		var remembering columnTimes
		for _, text := range rapid.SliceOfN(text, 1, 30).Draw(t, "texts") {
			got, gotErr := remembering.parse([]byte(text))
			want, wantErr := parseColumnTime([]byte(text))
			if !got.Equal(want) || (gotErr == nil) != (wantErr == nil) {
				t.Fatalf("%q: got %s, %v, want %s, %v", text, got, gotErr, want, wantErr)
			}
		}
	})
}
