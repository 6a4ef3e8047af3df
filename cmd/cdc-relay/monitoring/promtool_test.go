//go:build ops

package monitoring

import (
	"os/exec"
	"testing"
)

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("promtool is needed (Debian's package prometheus): %v", err)
	}
	for name, args := range map[string][]string{
		"rules are clean":   {"check", "rules", "--lint=all", "--lint-fatal", "rules/alerts.yaml"},
		"alerts fire right": {"test", "rules", "rules/alerts_test.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
				t.Errorf("promtool %v: %v\n%s", args, err, out)
			}
		})
	}
}
