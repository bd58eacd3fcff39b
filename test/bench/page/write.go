package page

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// The paths of the pages and figures, from the project's root.
const (
	Benchmarks = "docs/benchmarks.md"
	Readme     = "README.md"
	RunsFile   = "docs/benchmarks/peers.csv"
	CostsFile  = "docs/benchmarks/peers-steady.csv"
)

// Load reads the figures of a project.
func Load(root string) (Figures, error) {
	runs, err := ReadRuns(filepath.Join(root, RunsFile))
	costs, err2 := ReadCosts(filepath.Join(root, CostsFile))
	return Figures{runs, costs}, errors.Join(err, err2)
}

// Write updates the page, the plots and the README's headline from the CSV files of a
// project.
func Write(root string) error {
	f, err := Load(root)
	if err != nil {
		return err
	}
	names, drawings := f.Plots()
	for _, n := range names {
		err = errors.Join(err, os.WriteFile(filepath.Join(root, "docs", "benchmarks", n), []byte(drawings[n]), 0o644))
	}
	for _, b := range f.blocks() {
		err = errors.Join(err, FillFile(filepath.Join(root, b.page), b.name, b.text))
	}
	return err
}

type block struct{ page, name, text string }

func (f Figures) blocks() []block {
	return []block{
		{Benchmarks, "peers-targets", f.Targets()},
		{Benchmarks, "peers-silence", f.Silences()},
		{Benchmarks, "peers-loss", f.Losses()},
		{Benchmarks, "peers-steady", f.CostTable()},
		{Benchmarks, "peers-plots", f.Embed()},
		{Benchmarks, "peers-conditions", f.Conditions()},
		{Readme, "peers-headline", f.Headline()},
	}
}

// stale returns the files of a project that differ from what its figures give.
func stale(root string) (files []string, err error) {
	f, err := Load(root)
	if err != nil {
		return nil, err
	}
	note := func(path, want string) {
		text, e := os.ReadFile(filepath.Join(root, path))
		err = errors.Join(err, e)
		if string(text) != want && !slices.Contains(files, path) {
			files = append(files, path)
		}
	}
	names, drawings := f.Plots()
	for _, n := range names {
		note(filepath.Join("docs/benchmarks", n), drawings[n])
	}
	for _, b := range f.blocks() {
		text, e := os.ReadFile(filepath.Join(root, b.page))
		filled, e2 := Fill(string(text), b.name, b.text)
		err = errors.Join(err, e, e2)
		note(b.page, filled)
	}
	return files, err
}
