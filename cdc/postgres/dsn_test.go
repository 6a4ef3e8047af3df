package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

func configOf(t *testing.T, dsn string, insecure bool) (*pgconn.Config, error) {
	t.Helper()
	cfg := Config{DSN: func() (string, error) { return dsn, nil }, AllowInsecure: insecure, ConnectTimeout: defaultConnectTimeout}
	return cfg.connConfig()
}

func TestNothingOfTheEnvironmentLeaksIn(t *testing.T) {
	home := t.TempDir()
	for name, content := range map[string]string{
		".pgpass": "*:*:*:*:leaked", "services": "[leak]\nhost=leaked\nuser=leaked\npassword=leaked\nsearch_path=leaked\n",
		".postgresql/root.crt": "not a certificate",
	} {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"HOME": home, "PGHOST": "leaked", "PGPORT": "1111", "PGUSER": "leaked", "PGPASSWORD": "leaked", "PGDATABASE": "leaked", "PGSSLMODE": "disable",
		"PGSSLROOTCERT": "/leaked", "PGSSLCERT": "/leaked", "PGSSLKEY": "/leaked", "PGOPTIONS": "-c leaked=1", "PGTZ": "Asia/Seoul", "PGAPPNAME": "leaked",
		"PGTARGETSESSIONATTRS": "standby", "PGCONNECT_TIMEOUT": "1", "PGPASSFILE": filepath.Join(home, ".pgpass"), "PGSERVICE": "leak",
		"PGSERVICEFILE": filepath.Join(home, "services"), "PGCHANNELBINDING": "require", "PGREQUIREAUTH": "none", "PGSSLNEGOTIATION": "direct",
	} {
		t.Setenv(name, value)
	}
	got, err := configOf(t, "host=db.example.com user=relay sslmode=verify-full", false)
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != "db.example.com" || got.Port != 5432 || got.User != "relay" || got.Database != "relay" || got.Password != "" {
		t.Errorf("host %s, port %d, user %s, database %s, password of %d bytes", got.Host, got.Port, got.User, got.Database, len(got.Password))
	}
	if got.TLSConfig == nil || got.TLSConfig.InsecureSkipVerify || got.TLSConfig.ServerName != "db.example.com" || len(got.TLSConfig.Certificates) != 0 || got.SSLNegotiation != "" {
		t.Errorf("TLS %+v", got.TLSConfig)
	}
	if got.ValidateConnect != nil || len(got.Fallbacks) != 0 || got.ChannelBinding != "prefer" || got.RequireAuth != "" || got.ConnectTimeout != defaultConnectTimeout {
		t.Errorf("got fallbacks %v, channel binding %s, timeout %s", got.Fallbacks, got.ChannelBinding, got.ConnectTimeout)
	}
	want := map[string]string{"application_name": "cdc-relay"}
	for key, value := range pinnedParameters {
		want[key] = value
	}
	if diff := cmp.Diff(want, got.RuntimeParams); diff != "" {
		t.Errorf("runtime parameters (-want +got):\n%s", diff)
	}

	t.Run("a service file that is missing is named", func(t *testing.T) {
		t.Setenv("PGSERVICEFILE", filepath.Join(home, "missing"))
		if _, err := configOf(t, "host=db.example.com user=relay sslmode=verify-full", false); err == nil || !strings.Contains(err.Error(), "PGSERVICE") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBothFormsOfTheConnectionString(t *testing.T) {
	for _, dsn := range []string{
		`postgres://re%40lay:p%2Fw%27d%5C@127.0.0.1:6000/app?options=-c%20x.y%3D1`,
		`host=127.0.0.1 port = 6000 user='re@lay' password='p/w\'d\\' dbname=app options='-c x.y=1'`,
		`  host=127.0.0.1 port=6000 user=re@lay password=p/w\'d\\ database=app options=-c\ x.y=1 gssencmode=disable`,
	} {
		got, err := configOf(t, dsn, false)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		if got.Host != "127.0.0.1" || got.Port != 6000 || got.User != "re@lay" || got.Password != `p/w'd\` || got.Database != "app" || got.RuntimeParams["options"] != "-c x.y=1" {
			t.Errorf("%s: %s %d %s %s %s %v", dsn, got.Host, got.Port, got.User, got.Password, got.Database, got.RuntimeParams)
		}
	}
}

func TestWeakTLSIsRefusedBeyondThisHost(t *testing.T) {
	type result int
	const (
		refused result = iota
		plain
		unverified
		verified
	)
	tests := []struct {
		dsn      string
		insecure bool
		want     result
	}{
		{"host=db user=u", false, refused},
		{"host=db user=u sslmode=disable", false, refused},
		{"host=db user=u sslmode=prefer", false, refused},
		{"host=db user=u sslmode=require", false, refused},
		{"host=db user=u sslmode=verify-ca", false, refused},
		{"host=10.0.0.1 user=u", false, refused},
		{"postgres://u@db/x?ssl=true", false, refused},
		{"host=db user=u sslmode=verify-full", false, verified},
		{"host=db user=u sslrootcert=system", false, verified},
		{"host=db user=u", true, unverified},
		{"host=db user=u sslmode=prefer", true, unverified},
		{"host=db user=u sslmode=require", true, unverified},
		{"host=db user=u sslmode=allow", true, plain},
		{"host=db user=u sslmode=disable", true, plain},
		{"host=localhost user=u", false, plain},
		{"host=127.0.0.9 user=u sslmode=prefer", false, plain},
		{"host=::1 user=u", false, plain},
		{"postgres://u@[::1]:5432/x", false, plain},
		{"host=127.0.0.1 user=u sslmode=require", false, unverified},
		{"host=/var/run/postgresql user=u", false, plain},
	}
	for _, test := range tests {
		got := refused
		config, err := configOf(t, test.dsn, test.insecure)
		switch {
		case err != nil:
		case config.TLSConfig == nil:
			got = plain
		case config.TLSConfig.InsecureSkipVerify:
			got = unverified
		default:
			got = verified
		}
		if got != test.want {
			t.Errorf("%s (insecure %v): got %d, want %d: %v", test.dsn, test.insecure, got, test.want, err)
		}
		if err == nil && len(config.Fallbacks) != 0 {
			t.Errorf("%s: %d ways back", test.dsn, len(config.Fallbacks))
		}
	}
}

func TestErrorsOfTheConnectionStringNameNoSecret(t *testing.T) {
	for _, dsn := range []string{
		"", "canary", "postgres://u:canary@h:port/", "postgres://u:can/ary@h/d", "postgres://u:%zzcanary@h/d", "postgres://u:canary@h,i/d",
		"postgres://u:canary@h/d?canary=1", "host=h user=u password='canary", "host=h user=u password=canary sslmode=canary", "host=h user=u password=x canary=1",
		"host=h user=u password=a canary dbname=x", "host=127.0.0.1 user=u password=canary sslrootcert=/nowhere/canary sslmode=require",
		"service=canary", "host=h user=u port=canary", "host=h user=u target_session_attrs=canary", "user=u\x00canary", "host=127.0.0.1 user=u channel_binding=canary password=canary",
	} {
		_, err := configOf(t, dsn, false)
		if err == nil {
			t.Errorf("%q was accepted", dsn)
		} else if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "can/ary") {
			t.Errorf("%q: the secret is in %v", dsn, err)
		}
	}
}

func TestASlipInAKeyIsNamed(t *testing.T) {
	if _, err := configOf(t, "host=h user=u sslmod=verify-full", false); err == nil || !strings.Contains(err.Error(), `"sslmod"`) {
		t.Errorf("got %v", err)
	}
}

func TestNewReportsAllThatIsWrong(t *testing.T) {
	_, err := New(Config{Slot: "No Slot", Publication: "", Table: "outbox", GuardInterval: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"DSN", "slot", "publication", "table", "guard interval"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
