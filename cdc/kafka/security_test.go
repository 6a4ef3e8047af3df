package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// authority signs certificates in a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate, PEM
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write(t, a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) write(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue returns a certificate for 127.0.0.1 or a name, and the files of both parts.
func (a *authority) issue(t testing.TB, host string) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.write(t, certFile, "CERTIFICATE", der)
	a.write(t, keyFile, "PRIVATE KEY", keyDER)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, certFile, keyFile
}

const secret = "correct horse battery"

func password(s string) func() (string, error) { return func() (string, error) { return s, nil } }

func TestSecureConnections(t *testing.T) {
	ca := newAuthority(t, "test ca")
	pair, _, _ := ca.issue(t, "127.0.0.1")
	brokers := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}), kfake.EnableSASL(),
		kfake.Superuser(mechanismPlain, "relay", secret), kfake.Superuser(mechanismSCRAM256, "relay", secret),
		kfake.Superuser(mechanismSCRAM512, "relay", secret)).ListenAddrs()
	for _, mechanism := range []string{mechanismPlain, mechanismSCRAM256, mechanismSCRAM512} {
		t.Run(mechanism, func(t *testing.T) {
			cfg := testConfig(brokers)
			cfg.TLS.CAFile = ca.file
			cfg.SASL = SASL{Mechanism: mechanism, Username: "relay", Password: password(secret)}
			s := ready(t, cfg)
			p, _ := open(t, s)
			publish(t, p, batch(0x100, ""))
			p.Close()
			if facts, err := s.Advise(testContext(t)); err != nil || recordedLSN(facts) != 0x100 {
				t.Errorf("Advise: %s, %v", recordedLSN(facts), err)
			}
		})
	}
}

func TestRefusedConnectionsSayWhy(t *testing.T) {
	ca, otherCA := newAuthority(t, "test ca"), newAuthority(t, "other ca")
	pair, _, _ := ca.issue(t, "127.0.0.1")
	misnamed, _, _ := ca.issue(t, "kafka.example.com")
	sasl := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanismSCRAM512, "relay", secret)}
	secure := fake(t, append(sasl, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))...).ListenAddrs()
	wrongName := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{misnamed}})).ListenAddrs()
	plain := fake(t).ListenAddrs()
	plainSASL := fake(t, sasl...).ListenAddrs()
	// The fake broker hangs up where Apache Kafka answers.
	answering := fake(t, sasl...)
	answering.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		answering.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	answering.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		answering.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		resp.SupportedMechanisms = []string{mechanismSCRAM512}
		if req.(*kmsg.SASLHandshakeRequest).Mechanism == mechanismSCRAM512 {
			return nil, nil, false
		}
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		return resp, nil, true
	})
	good := SASL{Mechanism: mechanismSCRAM512, Username: "relay", Password: password(secret)}

	for _, c := range []struct {
		name      string
		brokers   []string
		tls       TLS
		sasl      SASL
		want, fix string
	}{
		{"another authority", secure, TLS{CAFile: otherCA.file}, good, "authority that is not trusted", "ca_file"},
		{"the system's roots", secure, TLS{Enabled: true}, good, "authority that is not trusted", "ca_file"},
		{"another name", wrongName, TLS{CAFile: ca.file}, SASL{}, "for another name", "kafka.brokers"},
		{"a wrong password", answering.ListenAddrs(), TLS{}, SASL{mechanismSCRAM512, "relay", password("wrong")}, "SASL_AUTHENTICATION_FAILED", "password file"},
		{"a wrong password where the broker hangs up", secure, TLS{CAFile: ca.file}, SASL{mechanismSCRAM512, "relay", password("wrong")}, "answers", "kafka.sasl is missing or wrong"},
		{"a mechanism the broker lacks", answering.ListenAddrs(), TLS{}, SASL{mechanismSCRAM256, "relay", password(secret)}, "SASL", "kafka.sasl"},
		{"plain text to a tls listener", secure, TLS{}, good, "speaks plain text", "kafka.tls"},
		{"tls to a plain listener", plain, TLS{CAFile: ca.file}, SASL{}, "does not speak tls", "disable kafka.tls"},
		{"no sasl where it is demanded", plainSASL, TLS{}, SASL{}, "", "kafka.sasl"},
		{"no sasl over tls where it is demanded", secure, TLS{CAFile: ca.file}, SASL{}, "answers", "kafka.sasl is missing"},
		{"a password that cannot be read", plainSASL, TLS{}, SASL{mechanismSCRAM512, "relay", func() (string, error) { return "", errors.New("password_file: gone") }}, "password_file: gone", "kafka.sasl"},
		{"a missing ca_file", secure, TLS{CAFile: "/nonexistent/ca.pem"}, good, "ca_file", "kafka.tls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(c.brokers)
			cfg.TLS, cfg.SASL = c.tls, c.sasl
			s := newSink(t, cfg)
			s.handshakeTimeout = 30 * time.Second
			if c.want == "does not speak tls" { // that listener waits for the rest of what it takes for a request
				s.handshakeTimeout = 500 * time.Millisecond
			}
			_, _, err := s.Open(untilRefused(t, s, anyRefusal))
			problem, ok := errors.AsType[*cdc.Problem](err)
			if !ok || problem.Treatment != cdc.Retry {
				t.Fatalf("Open: %v", err)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(problem.Fix, c.fix) {
				t.Errorf("problem %q\nwant %q\nfix with %q", err, c.want, c.fix)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t, "test ca")
	pair, _, _ := ca.issue(t, "127.0.0.1")
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	brokers := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients})).ListenAddrs()
	_, certFile, keyFile := ca.issue(t, "client")
	cfg := testConfig(brokers)
	cfg.TLS = TLS{CAFile: ca.file, CertFile: certFile, KeyFile: keyFile}
	open(t, newSink(t, cfg))

	cfg.TLS.CertFile, cfg.TLS.KeyFile = "", ""
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, _, err := newSink(t, cfg).Open(ctx); err == nil {
		t.Error("opened without a client certificate")
	}
}
