// Looks labels up in a directory of kt-es, watches its heads, and publishes a first version, over gRPC.
//
//	kt-go [options] lookup SERVER VKEY LABEL
//	kt-go [options] watch SERVER VKEY
//	kt-go [options] publish SERVER VKEY LABEL KEY NAME TEXT
//
// SERVER is HOST:PORT, VKEY the verifier key of the directory. The program trusts nothing but VKEY and what it
// has verified: the package verify checks every answer, from docs/FORMATS.md alone.
//
// The program ends with 0; with 1 if something failed; with 3 if it is proven that nobody has published keys for
// the label; with 4 if an answer proves nothing; with 5 if it cannot be told what stands now.
package main

//go:generate go install tool
//go:generate protoc -I ../../proto --go_out=. --go_opt=module=kt-es/examples/go,Mkt/v1/kt.proto=kt-es/examples/go/ktv1 --go-grpc_out=. --go-grpc_opt=module=kt-es/examples/go,Mkt/v1/kt.proto=kt-es/examples/go/ktv1 kt/v1/kt.proto

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"kt-es/examples/go/verify"
)

var (
	plain     = flag.Bool("plain", false, "connect without TLS")
	authority = flag.String("ca", "", "a file with the certificates to trust; by default those of the system")
	stateFile = flag.String("state", "", "a file that keeps what is trusted; without it, only this answer counts")
	epoch     = flag.Uint64("epoch", 0, "the epoch to ask about; by default the latest")
	heads     = flag.Int("heads", 3, "the number of heads to watch")
)

// errAbsent says that it is proven that nobody has published keys.
var errAbsent = errors.New("proven absent")

func main() {
	flag.Usage = usage
	flag.Parse()
	err := run(context.Background(), flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(codeOf(err))
}

func usage() {
	fmt.Fprintln(os.Stderr, `kt-go [options] lookup SERVER VKEY LABEL
kt-go [options] watch SERVER VKEY
kt-go [options] publish SERVER VKEY LABEL KEY NAME TEXT`)
	flag.PrintDefaults()
}

func codeOf(err error) int {
	var refused *verify.Error
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errAbsent):
		return 3
	case errors.As(err, &refused) && refused.Step == "freshness":
		return 5
	case errors.As(err, &refused):
		return 4
	}
	return 1
}

func run(ctx context.Context, arguments []string) error {
	commands := map[string]struct {
		count int
		run   func(context.Context, *directory, verify.Trusted, []string) error
	}{"lookup": {4, lookUp}, "watch": {3, watchHeads}, "publish": {7, publish}}
	if len(arguments) == 0 || len(arguments) != commands[arguments[0]].count {
		usage()
		return errors.New("unknown command, or the wrong number of arguments")
	}
	pinned, err := verify.ParseVerifierKey(arguments[2])
	if err != nil {
		return err
	}
	trusted, err := loadTrusted(*stateFile, pinned)
	if err != nil {
		return err
	}
	d, err := open(ctx, arguments[1], pinned, *authority, *plain)
	if err != nil {
		return err
	}
	defer d.connection.Close()
	return commands[arguments[0]].run(ctx, d, trusted, arguments[3:])
}

func lookUp(ctx context.Context, d *directory, trusted verify.Trusted, arguments []string) error {
	label := arguments[0]
	after, found, err := d.lookup(ctx, trusted, label, *epoch)
	if err != nil {
		return err
	}
	if err := storeTrusted(*stateFile, d.pinned, after); err != nil {
		return err
	}
	at := fmt.Sprintf("in epoch %d, %s", found.Head.Epoch, found.Head.Time().UTC().Format(time.RFC3339))
	switch {
	case found.Version == 0:
		return fmt.Errorf("%s: %w %s", label, errAbsent, at)
	case found.Erased:
		fmt.Printf("%s: version %d %s; its profile was erased\n", label, found.Version, at)
	default:
		fmt.Printf("%s: version %d %s\n", label, found.Version, at)
	}
	for _, key := range found.Profile {
		fmt.Printf("%s %s (%d bytes)\n", key.Type, key.Name, len(key.Data))
	}
	return nil
}

func watchHeads(ctx context.Context, d *directory, trusted verify.Trusted, _ []string) error {
	return d.watch(ctx, trusted, *heads, func(head verify.Head, after verify.Trusted) error {
		if err := storeTrusted(*stateFile, d.pinned, after); err != nil {
			return err
		}
		fmt.Printf("epoch %d: %d labels, %d records, %s\n",
			head.Epoch, head.MapSize, head.LogSize, head.Time().UTC().Format(time.RFC3339))
		return nil
	})
}
