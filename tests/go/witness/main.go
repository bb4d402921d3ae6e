// A witness and a client of witnesses that know nothing of kt-es: those of transparency-dev.
//
//	witness serve ADDRESS NAME KEYS       serves; KEYS is a file with the key of one log on each line, which is
//	                                      read for each request. Prints the URL, and the witness's own keys: of
//	                                      Ed25519 and of ML-DSA-44.
//	witness verify VKEY... < NOTE         prints the keys among these that have cosigned.
//	witness ask URL OLD HASH... < NOTE    asks a witness for a cosignature, with a proof of hexadecimal hashes.
//	                                      Prints one JSON document.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	f_note "github.com/transparency-dev/formats/note"
	client "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2], os.Args[3], os.Args[4])
	case "verify":
		err = verify(os.Args[2:])
	case "ask":
		err = ask(os.Args[2], os.Args[3], os.Args[4:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address, name, keys string) error {
	ctx := context.Background()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	signer, err := f_note.NewSignerForCosignatureV1(skey)
	if err != nil {
		return err
	}
	shown, err := f_note.VKeyToCosignatureV1(vkey)
	if err != nil {
		return err
	}
	quantumSkey, quantumVkey, err := f_note.GenerateMLDSAKey(name)
	if err != nil {
		return err
	}
	quantum, err := f_note.NewMLDSASigner(quantumSkey)
	if err != nil {
		return err
	}
	w, err := witness.New(ctx, witness.Opts{
		Persistence: inmemory.New(),
		Signers:     []note.Signer{signer, quantum},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			return verifierFor(keys, origin)
		},
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	fmt.Printf("http://%s %s %s\n", listener.Addr(), shown, quantumVkey)
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	return server.Serve(listener)
}

// verifierFor returns the last key of a log in the file: an operator adds that of a rotation.
func verifierFor(keys, origin string) (note.Verifier, bool, error) {
	file, err := os.Open(keys)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	var found note.Verifier
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), origin+"+") {
			continue
		}
		if found, err = note.NewVerifier(lines.Text()); err != nil {
			return nil, false, err
		}
	}
	return found, found != nil, lines.Err()
}

func verify(vkeys []string) error {
	signed, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	for _, vkey := range vkeys {
		verifier, err := f_note.NewVerifierForCosignatureV1(vkey)
		if err != nil {
			return err
		}
		if _, err := note.Open(signed, note.VerifierList(verifier)); err != nil {
			return err
		}
		fmt.Println(vkey)
	}
	return nil
}

type answer struct {
	Lines string `json:"lines"`
	Size  uint64 `json:"size"`
	Error string `json:"error"`
}

func ask(where, old string, hashes []string) error {
	parsed, err := url.Parse(where)
	if err != nil {
		return err
	}
	size, err := strconv.ParseUint(old, 10, 64)
	if err != nil {
		return err
	}
	proof := make([][]byte, len(hashes))
	for at, value := range hashes {
		if proof[at], err = hex.DecodeString(value); err != nil {
			return err
		}
	}
	signed, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	lines, known, err := client.NewWitness(parsed, http.DefaultClient).Update(ctx, size, signed, proof)
	said := ""
	if err != nil {
		said = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(answer{string(lines), known, said})
}
