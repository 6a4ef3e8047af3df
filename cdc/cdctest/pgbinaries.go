package cdctest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// oldestMajor is the oldest PostgreSQL that the relay supports.
const oldestMajor = 14

// postgresBinaries is a PostgreSQL installation.
type postgresBinaries struct {
	dir   string // has initdb and postgres
	major int
}

// binaryFolders are where packages put PostgreSQL, as patterns.
func binaryFolders() []string {
	folders := []string{
		"/usr/lib/postgresql/*/bin",         // Debian
		"/usr/pgsql-*/bin",                  // PGDG on Red Hat
		"/usr/local/pgsql/bin",              // built from source
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew
		"/usr/local/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	}
	return append(folders, filepath.SplitList(os.Getenv("PATH"))...)
}

// findPostgres returns the installations on this machine, at most one per
// major.
func findPostgres() map[int]postgresBinaries {
	found := make(map[int]postgresBinaries)
	for _, pattern := range binaryFolders() {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			continue // an entry of PATH that is no pattern
		}
		for _, dir := range dirs {
			bin, err := inspectBinaries(dir)
			if err != nil || bin.major < oldestMajor {
				continue
			}
			if _, known := found[bin.major]; !known {
				found[bin.major] = bin
			}
		}
	}
	return found
}

// versionPattern finds the major in "postgres (PostgreSQL) 17.2 (Debian ...)".
// A beta has no dot: "18beta1".
var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspectBinaries asks the installation in dir for its version.
func inspectBinaries(dir string) (postgresBinaries, error) {
	if os.Geteuid() == 0 && !reachableByAll(dir) {
		return postgresBinaries{}, fmt.Errorf("%s is not readable for other users than root", dir)
	}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return postgresBinaries{}, err
		}
	}
	output, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return postgresBinaries{}, fmt.Errorf("ask %s for its version: %w", dir, err)
	}
	match := versionPattern.FindSubmatch(output)
	if match == nil {
		return postgresBinaries{}, fmt.Errorf("%s printed no version: %q", dir, output)
	}
	major, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return postgresBinaries{}, fmt.Errorf("read version %q: %w", output, err)
	}
	return postgresBinaries{dir: dir, major: major}, nil
}

// locatePostgres returns binaries of the major: found on this machine, else
// embedded ones. 0 is the highest major found, else the embedded default.
func locatePostgres(major int) (postgresBinaries, error) {
	found := findPostgres()
	if major == 0 {
		for m := range found {
			major = max(major, m)
		}
	}
	if bin, ok := found[major]; ok {
		return bin, nil
	}
	if major == 0 {
		major = embeddedDefault
	}
	bin, err := embeddedPostgres(major)
	if err != nil {
		return postgresBinaries{}, errors.Join(
			fmt.Errorf("PostgreSQL %d is not installed here, and its binaries could not be had: %w", major, err),
			errors.New("install a PostgreSQL server (Debian: apt-get install postgresql) or allow access to Maven Central"))
	}
	return bin, nil
}
