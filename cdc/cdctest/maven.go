package cdctest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// mavenFetch is a directory that Maven fills.
type mavenFetch struct {
	name string // of the directory in the cache; has the versions
	what string // for the person who waits
	pom  string
	// goals returns the invocations that fill dir, each the arguments of one.
	goals func(dir string) [][]string
}

// pom names one artifact, a logging binding, and the version of the plugin of
// Maven that fetches them.
func pom(name, group, artifact, version, binding string) string {
	return `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>cdcrelay</groupId>
  <artifactId>` + name + `</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>` + group + `</groupId>
      <artifactId>` + artifact + `</artifactId>
      <version>` + version + `</version>
    </dependency>
    <dependency>
      ` + binding + `
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.8.1</version>
      </plugin>
    </plugins>
  </build>
</project>
`
}

// copyRuntime is the goal that copies the jars of a pom.
func copyRuntime(dir string) []string {
	return []string{"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=" + dir}
}

// directory returns where the files are, fetched before if need be. Processes
// that need them at the same time wait for each other.
func (f mavenFetch) directory() (string, error) {
	cache, err := userCache()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, f.name)
	err = locked(home+".lock", func() error {
		// The directory gets its name only when it is complete.
		if _, err := os.Stat(home); err == nil {
			return nil
		}
		return f.fetch(cache, home)
	})
	return home, err
}

func (f mavenFetch) fetch(cache, home string) error {
	maven, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("fetch %s: %w; install Maven", f.what, err)
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(work) // what is left of it
	pom, files := filepath.Join(work, "pom.xml"), filepath.Join(work, "files")
	if err := os.WriteFile(pom, []byte(f.pom), 0o644); err != nil {
		return fmt.Errorf("write pom.xml: %w", err)
	}
	fmt.Fprintf(os.Stderr, "cdctest: fetching %s\n", f.what)
	for _, goal := range f.goals(files) {
		cmd := exec.Command(maven, append([]string{"--batch-mode", "--no-transfer-progress", "--quiet", "--file", pom}, goal...)...)
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("fetch %s by Maven: %w: %s", f.what, err, output)
		}
	}
	return os.Rename(files, home)
}
