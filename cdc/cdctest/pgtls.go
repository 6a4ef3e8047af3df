package cdctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// makeCertificate makes what a server with TLS needs, for its loopback address;
// it is its own authority.
func (s *PostgresServer) makeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "PostgreSQL under test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	keyFile := filepath.Join(s.DataDir(), "server.key")
	return errors.Join(
		os.WriteFile(s.certificate(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		ownByServer(keyFile))
}

// certificate lies where clients can read it, beside the data directory.
func (s *PostgresServer) certificate() string { return filepath.Join(s.root, "server.crt") }

// TLSDSN returns a connection string over TCP with TLS, the server's certificate
// verified; for a cluster that was made with PostgresConfig.TLS.
func (s *PostgresServer) TLSDSN(database, user string) string {
	dsn := url.URL{
		Scheme: "postgres", User: url.User(user), Host: loopback(s.port), Path: "/" + database,
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.certificate()}}.Encode(),
	}
	return dsn.String()
}

// TLSDSN is PostgresServer.TLSDSN.
func (p *Postgres) TLSDSN(database, user string) string { return p.server.TLSDSN(database, user) }
