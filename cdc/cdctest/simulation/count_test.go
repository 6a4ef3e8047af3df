//go:build !race

package simulation

const defaultSchedules = 100_000
