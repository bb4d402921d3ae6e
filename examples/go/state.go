package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kt-es/examples/go/verify"
)

// state is what a file keeps of one directory.
type state struct {
	Origin  string
	Trusted verify.Trusted
}

// loadTrusted reads what is trusted of the directory. "" and a file that does not exist are nothing yet.
func loadTrusted(file string, pinned verify.Pinned) (trusted verify.Trusted, err error) {
	if file == "" {
		return trusted, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return trusted, nil
	}
	if err != nil {
		return trusted, err
	}
	var kept state
	if err := json.Unmarshal(data, &kept); err != nil {
		return trusted, fmt.Errorf("%s: %w", file, err)
	}
	if kept.Origin != pinned.Origin {
		return trusted, fmt.Errorf("%s is about %s", file, kept.Origin)
	}
	return kept.Trusted, nil
}

// storeTrusted makes what is trusted durable: the file is whole, and on the disk, before it has its name.
func storeTrusted(file string, pinned verify.Pinned, trusted verify.Trusted) error {
	if file == "" {
		return nil
	}
	data, err := json.Marshal(state{pinned.Origin, trusted})
	if err != nil {
		return err
	}
	folder := filepath.Dir(file)
	made, err := os.CreateTemp(folder, ".kt-go-*")
	if err != nil {
		return err
	}
	defer os.Remove(made.Name())
	_, err = made.Write(data)
	if err = errors.Join(err, made.Sync(), made.Close()); err != nil {
		return err
	}
	if err := os.Rename(made.Name(), file); err != nil {
		return err
	}
	opened, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}
