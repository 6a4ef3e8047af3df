package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/notifier"
)

// maxEventBytes bounds what render reads.
const maxEventBytes = 1 << 20

func (p *program) sendTestCommand() *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use:   "send-test",
		Short: "Post a test message",
		Long:  "Post a test message to the configured webhook, past Kafka and inbox.",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the message instead")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		if dryRun {
			return p.printMessage(notifier.SampleMessage(c.Slack.Destination), outputText)
		}
		if c.Slack.WebhookURL == "" && c.Slack.WebhookURLFile == "" {
			return usageError{fmt.Errorf("slack.webhook_url or slack.webhook_url_file is missing")}
		}
		if err := notifier.SendTest(cmd.Context(), c.slack()); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "posted to %s\n", c.Slack.Destination)
		return nil
	}
	return cmd
}

func (p *program) renderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render FILE",
		Short: "Print the message of an event",
		Long: `Print the message of an event: a preview and the JSON that would be posted. FILE
holds a CloudEvent in structured mode or a bare payload; - is standard input.`,
		Example: "  notifier render event.json",
		Args:    cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		content, err := p.read(args[0])
		if err != nil {
			return usageError{err}
		}
		m, err := notifier.Render(content, c.Slack.TraceURL)
		if err != nil {
			return err
		}
		return p.printMessage(m, *output)
	}
	return cmd
}

func (p *program) read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(p.stdin, maxEventBytes))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, maxEventBytes))
}

func (p *program) printMessage(m notifier.Message, format outputFormat) error {
	content, err := m.JSON()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if format == outputText {
		b.WriteString(m.Preview() + "\n")
	}
	if err := json.Indent(&b, content, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout, b.String())
	return err
}
