package cdctest

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/xi2/xz"
)

// unpackArchive unpacks a .tar.xz below dir. Names and links that lead out of
// it are errors.
func unpackArchive(archive, dir string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	decompressed, err := xz.NewReader(file, 0)
	if err != nil {
		return err
	}
	root, err := makeRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries := tar.NewReader(decompressed)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, entry, entries); err != nil {
			return fmt.Errorf("unpack %s: %w", entry.Name, err)
		}
	}
}

// unpackEntry writes one entry of the archive; readable and, where the archive
// says so, executable for all.
func unpackEntry(root *os.Root, entry *tar.Header, content io.Reader) error {
	name := filepath.Clean(entry.Name)
	if entry.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch entry.Typeflag {
	case tar.TypeReg:
		mode := os.FileMode(0o644)
		if entry.Mode&0o100 != 0 {
			mode = 0o755
		}
		return writeNew(root, name, mode, content)
	case tar.TypeSymlink:
		return root.Symlink(entry.Linkname, name)
	case tar.TypeLink:
		return root.Link(filepath.Clean(entry.Linkname), name)
	default:
		return fmt.Errorf("unexpected type %q", entry.Typeflag)
	}
}

// makeRoot makes a directory that names cannot lead out of.
func makeRoot(dir string) (*os.Root, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// writeNew writes a file that does not exist yet, with this mode whatever the
// umask is.
func writeNew(root *os.Root, name string, mode os.FileMode, content io.Reader) error {
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, content); err != nil {
		return errors.Join(err, file.Close())
	}
	return errors.Join(file.Chmod(mode), file.Close())
}
