package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"kt-es/examples/go/ktv1"
	"kt-es/examples/go/verify"
)

// live is the directory that the environment names in KT_GO_LIVE, as JSON. tests/e2e/test_go_client.py runs one.
type live struct {
	Server, Vkey, Authority string
	// Labels: one with a profile, one whose profile was erased, one that nobody has.
	Present, Erased, Absent string
	Profile                 []byte
}

func opened(t *testing.T) (live, *directory) {
	t.Helper()
	text := os.Getenv("KT_GO_LIVE")
	if text == "" {
		t.Skip("KT_GO_LIVE names no directory")
	}
	var l live
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatal(err)
	}
	pinned, err := verify.ParseVerifierKey(l.Vkey)
	if err != nil {
		t.Fatal(err)
	}
	d, err := open(t.Context(), l.Server, pinned, l.Authority, l.Authority == "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.connection.Close() })
	return l, d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// later returns what was trusted first, and the state some epochs later.
func later(t *testing.T, d *directory, label string) (first, last verify.Trusted) {
	t.Helper()
	first, _, err := d.lookup(t.Context(), verify.Trusted{}, label, 0)
	must(t, err)
	must(t, d.watch(t.Context(), first, 2, func(_ verify.Head, after verify.Trusted) error {
		last = after
		return nil
	}))
	if last.Size != first.Size+2 {
		t.Fatalf("two heads lead from %d to %d", first.Size, last.Size)
	}
	return first, last
}

func TestLookups(t *testing.T) {
	l, d := opened(t)
	first, _ := later(t, d, l.Absent)
	after, found, err := d.lookup(t.Context(), first, l.Present, 0)
	must(t, err)
	if after.Size <= first.Size || len(found.Profile) != 1 || !bytes.Equal(found.Profile[0].Data, l.Profile) {
		t.Fatalf("%+v", found)
	}
	if _, found, err = d.lookup(t.Context(), after, l.Erased, 0); err != nil || !found.Erased {
		t.Fatal(found, err)
	}
	if _, found, err = d.lookup(t.Context(), after, l.Absent, 0); err != nil || found.Version != 0 {
		t.Fatal(found, err)
	}
	// An epoch before anything was published, in the log of now.
	if _, found, err = d.lookup(t.Context(), after, l.Present, 1); err != nil || found.Version != 0 {
		t.Fatal(found, err)
	}
}

// TestEveryByteOfLookupsCounts changes a bit of every byte that came, and asks for a refusal each time.
func TestEveryByteOfLookupsCounts(t *testing.T) {
	l, d := opened(t)
	first, _ := later(t, d, l.Absent)
	described, err := d.service.Describe(t.Context(), &ktv1.DescribeRequest{})
	must(t, err)
	configs := described.Configs
	for _, label := range []string{l.Present, l.Erased, l.Absent} {
		came, err := d.service.Lookup(t.Context(), lookupRequest(first, label, 0))
		must(t, err)
		answer := answerOf(came)
		asked := verify.Question{Label: label, Now: time.Now().UnixMilli()}
		check := func() error {
			chain, err := verify.VerifyChain(d.pinned, configs)
			if err != nil {
				return err
			}
			_, _, err = chain.Verify(first, asked, answer)
			return err
		}
		must(t, check())
		if len(answer.Consistency) == 0 || (label == l.Present) != (len(answer.Profile) > 0) {
			t.Fatal("a part is missing")
		}
		everyByte(t, label, check, &configs, &answer.Answer, &answer.Profile)
		for position := range answer.Consistency {
			everyByte(t, label, check, &answer.Consistency[position])
		}
		answer.Epoch++
		refused(t, label, check())
	}
}

// everyByte changes the parts byte by byte, and asks check for a refusal each time.
func everyByte(t *testing.T, what string, check func() error, parts ...*[]byte) {
	t.Helper()
	for number, part := range parts {
		before := *part
		for position := range before {
			*part = bytes.Clone(before)
			(*part)[position] ^= 1 << (position % 8)
			var refusal *verify.Error
			if err := check(); !errors.As(err, &refusal) {
				t.Errorf("%s: byte %d of part %d may be changed: %v", what, position, number, err)
			}
		}
		*part = before
	}
	must(t, check())
}

func refused(t *testing.T, what string, err error) {
	t.Helper()
	var refusal *verify.Error
	if !errors.As(err, &refusal) {
		t.Errorf("%s is not refused: %v", what, err)
	}
}

// TestEveryByteOfHeadsCounts does the same with a head of a watch, which begins behind the latest one.
func TestEveryByteOfHeadsCounts(t *testing.T) {
	l, d := opened(t)
	first, last := later(t, d, l.Absent)
	stream, err := d.service.WatchHeads(t.Context(), &ktv1.WatchHeadsRequest{Since: &first.Size})
	must(t, err)
	came, err := stream.Recv()
	must(t, err)
	head := publishedHead(came)
	if head.HeadsCheckpoint == head.LatestCheckpoint || len(head.Consistency) == 0 || len(head.Inclusion) == 0 {
		t.Fatalf("a part is missing of a head of %d epochs", last.Size)
	}
	check := func() error {
		_, err := verify.NewWatch(d.chain, first).Next(head)
		return err
	}
	must(t, check())
	everyByte(t, "head", check, &head.SMH)
	for _, hashes := range [][][]byte{head.Inclusion, head.Consistency} {
		for position := range hashes {
			everyByte(t, "head", check, &hashes[position])
		}
	}
	for _, note := range []*string{&head.HeadsCheckpoint, &head.MutationsCheckpoint, &head.LatestCheckpoint} {
		data := []byte(*note)
		everyByte(t, "head", func() error { *note = string(data); return check() }, &data)
	}
	head.Epoch++
	refused(t, "another epoch", check())
}

func TestAWatchLeavesNoHeadOut(t *testing.T) {
	l, d := opened(t)
	first, _ := later(t, d, l.Absent)
	stream, err := d.service.WatchHeads(t.Context(), &ktv1.WatchHeadsRequest{Since: &first.Size})
	must(t, err)
	_, err = stream.Recv()
	must(t, err)
	second, err := stream.Recv()
	must(t, err)
	_, err = verify.NewWatch(d.chain, first).Next(publishedHead(second))
	refused(t, "a gap", err)
}

func TestFailuresHaveTheirReasons(t *testing.T) {
	l, d := opened(t)
	_, _, err := d.lookup(t.Context(), verify.Trusted{}, l.Present, 1<<40)
	if status.Code(err) != codes.NotFound || !bytes.Contains([]byte(err.Error()), []byte("unknown-epoch")) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ahead := uint64(1 << 40)
	_, err = d.service.WatchHeads(ctx, &ktv1.WatchHeadsRequest{Since: &ahead})
	must(t, err)
	if _, err := d.service.Submit(ctx, &ktv1.SubmitRequest{Label: l.Present}); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}
