package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/notifier"
)

func (p *program) dlqCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Look at dead letters and deliver them again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("want one of: dlq list, dlq show, dlq redrive")}
		},
	}
	cmd.AddCommand(p.dlqListCommand(), p.dlqShowCommand(), p.dlqRedriveCommand())
	return cmd
}

// dlqFilter chooses dead letters.
type dlqFilter struct {
	reason string
	events []string
	all    bool
}

func (f *dlqFilter) matches(letter notifier.DeadLetter) bool {
	return (f.reason == "" || letter.Reason == f.reason) && (len(f.events) == 0 || slices.Contains(f.events, letter.EventID))
}

func (p *program) dlqListCommand() *cobra.Command {
	var filter dlqFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, oldest first",
		Long:  "List the dead letters that were not delivered since, oldest first.",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&filter.reason, "reason", "", "only of this `REASON`: bad_event_id, no_event_type, undecodable or rejected")
	cmd.Flags().BoolVar(&filter.all, "all", false, "also those that were delivered since")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.withLetters(cmd.Context(), func(_ *notifier.Notifier, letters []notifier.DeadLetter) error {
			listed := []notifier.DeadLetter{}
			for _, letter := range letters {
				if filter.matches(letter) && (filter.all || letter.State != "sent") {
					listed = append(listed, letter)
				}
			}
			if *output == outputJSON {
				return p.printJSON(listed)
			}
			w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "EVENT ID\tTYPE\tREASON\tSTATE\tBURIED\tFROM")
			for _, l := range listed {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s/%d/%d\n", l.EventID, l.EventType, l.Reason, l.State, l.BuriedAt.UTC().Format(time.RFC3339), l.Topic, l.Partition, l.Offset)
			}
			return w.Flush()
		})
	}
	return cmd
}

// shownLetter is the output of `dlq show -o json`, a contract.
type shownLetter struct {
	notifier.DeadLetter
	Key     string            `json:"key"`
	Headers map[string]string `json:"headers"`
	Value   string            `json:"value"`
	Base64  bool              `json:"base64,omitempty"` // of value, where it is no text
}

func (p *program) dlqShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show EVENT_ID",
		Short: "Show one dead letter with its payload",
		Args:  cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return p.withLetters(cmd.Context(), func(_ *notifier.Notifier, letters []notifier.DeadLetter) error {
			i := slices.IndexFunc(letters, func(l notifier.DeadLetter) bool { return l.EventID == args[0] })
			if i < 0 {
				return usageError{fmt.Errorf("no dead letter has the event id %q", args[0])}
			}
			shown := showLetter(letters[i])
			if *output == outputJSON {
				return p.printJSON(shown)
			}
			p.printLetter(shown)
			return nil
		})
	}
	return cmd
}

func showLetter(letter notifier.DeadLetter) shownLetter {
	r := letter.Record
	shown := shownLetter{DeadLetter: letter, Key: string(r.Key), Headers: map[string]string{}, Value: string(r.Value)}
	for _, h := range r.Headers {
		shown.Headers[h.Key] = string(h.Value)
	}
	if !utf8.Valid(r.Value) {
		shown.Value, shown.Base64 = base64.StdEncoding.EncodeToString(r.Value), true
	}
	return shown
}

// printLetter quotes what came from outside: it may hold control characters.
func (p *program) printLetter(l shownLetter) {
	fmt.Fprintf(p.stdout, "event    %s %s\nstate    %s\nreason   %s\nerror    %q\nattempts %d\nfrom     %s/%d/%d at %s\nburied   %s by %s at %s\nkey      %q\n",
		l.EventID, l.EventType, l.State, l.Reason, l.Error, l.Attempts, l.Topic, l.Partition, l.Offset, l.Timestamp.UTC().Format(time.RFC3339),
		l.DeadOffset, l.Consumer, l.BuriedAt.UTC().Format(time.RFC3339), l.Key)
	for _, h := range l.Record.Headers {
		fmt.Fprintf(p.stdout, "header   %s: %q\n", h.Key, h.Value)
	}
	fmt.Fprintf(p.stdout, "value    %q\n", l.Record.Value)
}

func (p *program) dlqRedriveCommand() *cobra.Command {
	var filter dlqFilter
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Deliver dead letters again",
		Long: `Deliver dead letters again, straight to Slack. An event that was delivered since is
not posted again; one that fails again stays a dead letter.`,
		Example: "  notifier dlq redrive --reason rejected",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&filter.reason, "reason", "", "those of this `REASON`")
	cmd.Flags().StringArrayVar(&filter.events, "event", nil, "the one with this `EVENT_ID`; repeatable")
	cmd.Flags().BoolVar(&filter.all, "all", false, "all of them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !filter.all && filter.reason == "" && len(filter.events) == 0 {
			return usageError{errors.New("which ones? want --event, --reason or --all")}
		}
		return p.withLetters(cmd.Context(), func(n *notifier.Notifier, letters []notifier.DeadLetter) error {
			letters = slices.DeleteFunc(letters, func(l notifier.DeadLetter) bool { return l.State == "sent" || !filter.matches(l) })
			return p.redrive(cmd.Context(), n, letters)
		})
	}
	return cmd
}

func (p *program) redrive(ctx context.Context, n *notifier.Notifier, letters []notifier.DeadLetter) error {
	delivered := 0
	err := n.Redrive(ctx, letters, func(letter notifier.DeadLetter, outcome string) {
		if outcome == "delivered" {
			delivered++
		}
		fmt.Fprintf(p.stdout, "%s %s\n", letter.EventID, outcome)
	})
	fmt.Fprintf(p.stderr, "notifier: %d of %d dead letters delivered\n", delivered, len(letters))
	return err
}

func (p *program) withLetters(ctx context.Context, do func(n *notifier.Notifier, letters []notifier.DeadLetter) error) error {
	return p.withNotifier(ctx, func(n *notifier.Notifier) error {
		letters, err := n.DeadLetters(ctx)
		if err != nil {
			return err
		}
		return do(n, letters)
	})
}
