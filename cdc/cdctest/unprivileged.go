package cdctest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// nobodyID is the user and group of servers started by root where the user
// database has no entry nobody.
const nobodyID = 65534

// serverCredential returns the user that PostgreSQL runs as: nil means the
// current one. PostgreSQL refuses to run as root.
func serverCredential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	cred := &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
	u, err := user.Lookup("nobody")
	if err != nil {
		return cred
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 == nil && err2 == nil && uid != 0 {
		cred.Uid, cred.Gid = uint32(uid), uint32(gid)
	}
	return cred
}

// ownByServer hands a path to the user that the servers run as.
func ownByServer(path string) error {
	cred := serverCredential()
	if cred == nil {
		return nil
	}
	if err := os.Lchown(path, int(cred.Uid), int(cred.Gid)); err != nil {
		return fmt.Errorf("hand %s to the server's user: %w", path, err)
	}
	return nil
}

// serverTempBase returns a directory in which the server's user can reach what
// is made there. It is short, because the path of a Unix socket is limited to
// about 100 bytes.
func serverTempBase() string {
	if dir := os.TempDir(); len(dir) <= 40 && (os.Geteuid() != 0 || reachableByAll(dir)) {
		return dir
	}
	return "/tmp"
}

// reachableByAll says whether every directory on the way to path lets other
// users pass.
func reachableByAll(path string) bool {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(path)
		if parent == path {
			return true
		}
		path = parent
	}
}

// serverCache returns the directory for binaries that the servers' user runs.
// Root's own cache is no place for them: that user could not read there.
func serverCache() (string, error) {
	if os.Geteuid() == 0 {
		return sharedTempCache()
	}
	return userCache()
}

// userCache returns the directory for what this user fetched once; a user
// without a home has it under the directory for temporary files.
func userCache() (string, error) {
	if base, err := os.UserCacheDir(); err == nil {
		dir := filepath.Join(base, "cdc-relay")
		if os.MkdirAll(dir, 0o755) == nil {
			return dir, nil
		}
	}
	return sharedTempCache()
}

// sharedTempCache returns this user's cache in the temporary directory.
func sharedTempCache() (string, error) {
	dir := filepath.Join(serverTempBase(), "cdc-relay-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	// A directory that another user made there first could hold that user's
	// binaries.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("look at the cache: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("cache %s can be written by somebody else; remove it", dir)
	}
	return dir, nil
}

// locked runs f while this process, and no other one, holds the lock file.
func locked(path string, f func() error) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	defer file.Close() // releases the lock
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err == nil {
			return f()
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock %s: %w", path, err)
		}
	}
}
