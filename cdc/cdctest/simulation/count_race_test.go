//go:build race

package simulation

const defaultSchedules = 5_000
