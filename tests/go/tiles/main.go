// Reads a whole log from its tiles as anybody may, with libraries that know nothing of kt-es.
//
//	tiles URL VKEY OLDER
//
// URL is the log's prefix, VKEY the key of its checkpoints (C2SP signed-note), OLDER a smaller size whose
// consistency with the whole log is proven as well. The answer is one JSON document: the size, the root at
// OLDER, and the SHA-256 of all entries, each behind its length.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type answer struct {
	Size    int64     `json:"size"`
	Entries string    `json:"entries"`
	Older   tlog.Hash `json:"older"`
}

func main() {
	found, err := read(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(1)
	}
}

func read(url, vkey, older string) (*answer, error) {
	ctx := context.Background()
	size, err := strconv.ParseInt(older, 10, 64)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	fetcher, err := torchwood.NewTileFetcher(url)
	if err != nil {
		return nil, err
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		return nil, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return nil, err
	}
	checkpoint, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil {
		return nil, err
	}
	if checkpoint.Origin != verifier.Name() {
		return nil, fmt.Errorf("the checkpoint is of %q", checkpoint.Origin)
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		return nil, err
	}
	digest, count := sha256.New(), int64(0)
	// The client leaves out a last tile that may still grow, unless it begins there.
	for count < checkpoint.N {
		before := count
		for number, entry := range client.Entries(ctx, checkpoint.Tree, count) {
			if number != count {
				return nil, fmt.Errorf("entry %d came in place of %d", number, count)
			}
			count++
			_ = binary.Write(digest, binary.BigEndian, uint32(len(entry)))
			digest.Write(entry)
		}
		if err := client.Err(); err != nil {
			return nil, err
		}
		if count == before {
			return nil, fmt.Errorf("there are no entries after %d", count)
		}
	}
	last := checkpoint.N - 1
	entry, inclusion, err := client.Entry(ctx, checkpoint.Tree, last)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(inclusion, checkpoint.N, checkpoint.Hash, last, tlog.RecordHash(entry)); err != nil {
		return nil, err
	}
	reader := torchwood.TileHashReaderWithContext(ctx, checkpoint.Tree, fetcher)
	root, err := tlog.TreeHash(size, reader)
	if err != nil {
		return nil, err
	}
	proof, err := tlog.ProveTree(checkpoint.N, size, reader)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckTree(proof, checkpoint.N, checkpoint.Hash, size, root); err != nil {
		return nil, err
	}
	return &answer{checkpoint.N, fmt.Sprintf("%x", digest.Sum(nil)), root}, nil
}
