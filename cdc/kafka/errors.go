package kafka

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// explain turns err into a *cdc.Problem that says what failed, why in Kafka's
// words, and what to do. What already is one stays; step names what was tried.
// Everything here is retried by the relay: brokers come back, rights are given,
// passwords are rotated.
func (s *Sink) explain(step string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*cdc.Problem](err); ok {
		return fmt.Errorf("%s: %w", step, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed) {
		// The deadline is never the reason; a failed connection may be.
		if cause := s.connects.last(); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
	}
	p := &cdc.Problem{What: step + " failed", Err: err}
	if !s.explainKafka(p, err) && !s.explainConnection(p, err) {
		// franz-go says of a connection that was not made in time that it has died.
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed) || kgo.IsRetryableBrokerErr(err) {
			p.Why = "no answer in time"
			p.Fix = "look at the brokers' health: offline partitions, overloaded or restarting brokers"
		}
	}
	return p
}

func (s *Sink) brokers() string { return "[" + strings.Join(s.cfg.Brokers, " ") + "]" }

func (s *Sink) bootstrap() string { return strings.Join(s.cfg.Brokers, ",") }

// kafkaFix says what to do about a Kafka error, beside those that cure themselves.
type kafkaFix struct {
	err *kerr.Error
	fix string
}

// kafkaFixes are matched in order. The texts may use {bootstrap}, {prefix},
// {position} and {user}.
var kafkaFixes = []kafkaFix{
	{kerr.SaslAuthenticationFailed, "check kafka.sasl: username {user}, the password file and the mechanism that the user has credentials for"},
	{kerr.UnsupportedSaslMechanism, "set kafka.sasl.mechanism to one that the broker's listener has enabled (sasl.enabled.mechanisms)"},
	{kerr.IllegalSaslState, "the broker's listener expects no sasl: remove kafka.sasl or use the other listener"},
	{kerr.TransactionalIDAuthorizationFailed, "kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal User:{user} --operation Write --operation Describe --transactional-id {prefix} --resource-pattern-type prefixed"},
	{kerr.TopicAuthorizationFailed, "kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal User:{user} --operation Write --operation Describe --operation DescribeConfigs --topic NAME (and --operation Read on {position})"},
	{kerr.ClusterAuthorizationFailed, "give User:{user} the right that the step needs on the cluster, or let an administrator do it (cdc-relay init)"},
	{kerr.InvalidTransactionTimeout, "lower kafka.transaction_timeout, or raise the broker's transaction.max.timeout.ms"},
	{kerr.ProducerFenced, "nothing, if another replica took over; otherwise look for a second relay with the transactional ids {prefix}.*"},
	{kerr.InvalidProducerEpoch, "nothing, if another replica took over or the transaction timed out; otherwise look for a second relay with the transactional ids {prefix}.*"},
	{kerr.NotEnoughReplicas, "bring the missing brokers back: fewer replicas are in sync than min.insync.replicas asks for"},
	{kerr.NotEnoughReplicasAfterAppend, "bring the missing brokers back: fewer replicas are in sync than min.insync.replicas asks for"},
	{kerr.InvalidReplicationFactor, "lower kafka.replication to at most the number of brokers, or start more"},
	{kerr.PolicyViolation, "the cluster has a policy for topics: let an administrator create the topic"},
	{kerr.CoordinatorNotAvailable, "wait, or look at the internal topic __transaction_state: its partitions need a leader"},
	{kerr.UnsupportedVersion, "use brokers of Apache Kafka 2.5 or newer"},
}

// explainKafka fills in what the broker answered.
func (s *Sink) explainKafka(p *cdc.Problem, err error) bool {
	answer, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return false
	}
	p.Why = answer.Message
	for _, known := range kafkaFixes {
		if errors.Is(err, known.err) {
			p.Why = known.err.Message
			p.Fix = s.fill(known.fix)
			break
		}
	}
	return true
}

func (s *Sink) fill(text string) string {
	user := s.cfg.SASL.Username
	if user == "" {
		user = "ANONYMOUS"
	}
	return strings.NewReplacer("{bootstrap}", s.bootstrap(), "{prefix}", s.cfg.TransactionalIDPrefix,
		"{position}", s.cfg.PositionTopic, "{user}", user).Replace(text)
}

// explainConnection fills in why no broker could be spoken to.
func (s *Sink) explainConnection(p *cdc.Problem, err error) bool {
	if local, ok := errors.AsType[*credentialError](err); ok {
		p.Why = local.Error()
		p.Fix = "check the files named under kafka.tls and kafka.sasl"
		return true
	}
	if handshake, ok := errors.AsType[*handshakeError](err); ok {
		p.What = "no secure connection to " + handshake.addr + " while trying to " + step(p)
		p.Why, p.Fix = explainHandshake(handshake.err)
		return true
	}
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		// crypto/tls names an alert of the other side so. With TLS 1.3 a refused
		// client certificate is only told of after the handshake.
		p.What = "a broker of " + s.brokers() + " ended the secure connection while trying to " + step(p)
		p.Why = "it sent a tls alert: " + alert.Error()
		p.Fix = "for mutual tls set kafka.tls.cert_file and key_file to a certificate that the brokers trust and that has not expired"
		return true
	}
	if s.looksLikeTLS(err) {
		p.What = "no broker of " + s.brokers() + " speaks plain text"
		p.Why = "the connection was closed or answered as a tls listener does"
		p.Fix = "enable kafka.tls, or use the brokers' plain listener; where the listener demands sasl, set kafka.sasl"
		return true
	}
	var netErr net.Error
	if errors.As(err, &netErr) && !errors.Is(netErr, context.DeadlineExceeded) || isDial(err) || errors.Is(err, io.EOF) {
		p.Why = "while trying to " + step(p)
		p.What = "no broker of " + s.brokers() + " answers"
		p.Fix = "check kafka.brokers, DNS, the network and that the brokers run; their advertised.listeners must be reachable from here"
		if errors.Is(err, io.EOF) {
			p.Fix += "; a listener also hangs up like this where kafka.sasl is missing or wrong"
		}
		return true
	}
	return false
}

func step(p *cdc.Problem) string { return strings.TrimSuffix(p.What, " failed") }

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// looksLikeTLS guesses from how a listener treats a client without TLS or SASL.
func (s *Sink) looksLikeTLS(err error) bool {
	if s.cfg.TLS.enabled() {
		return false
	}
	_, eof := errors.AsType[*kgo.ErrFirstReadEOF](err)
	return eof || errors.Is(err, errTLSAlert)
}

// explainHandshake tells the three usual causes apart by the types of the errors.
func explainHandshake(err error) (why, fix string) {
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the broker's certificate is signed by an authority that is not trusted: " + unknown.Error(),
			"set kafka.tls.ca_file to the certificate of the authority that signed the brokers' certificates"
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the broker's certificate is for another name: " + name.Error(),
			"use in kafka.brokers (and in advertised.listeners) a name that the certificate holds"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return "the broker's certificate is not valid: " + invalid.Error(), "renew the broker's certificate"
	}
	return "the other side does not speak tls, or refused the client's certificate",
		"use the brokers' tls listener, or disable kafka.tls for a plain one; for mutual tls set cert_file and key_file"
}
