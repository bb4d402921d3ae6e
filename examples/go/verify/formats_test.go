package verify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The directory of docs/FORMATS.md: its examples are all that these tests know of it.
const (
	formatsFile  = "../../../docs/FORMATS.md"
	origin       = "kt.example.org/people"
	present      = "alice@example.org"
	erased       = "bob@example.org"
	absent       = "carol@example.org"
	secondEpoch  = 1704067202000 // ms
	presentIndex = "4051dabb6485cf128c1f162a0345e98934b24ab5fe553dd5bc66b078720e50e5"
)

// examples returns the hexadecimal examples of FORMATS by their names.
func examples(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile(formatsFile)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, block := range regexp.MustCompile("(?s)```hex ([a-z0-9-]+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		var digits strings.Builder
		for line := range strings.Lines(block[2]) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		data, err := hex.DecodeString(digits.String())
		if err != nil {
			t.Fatal(block[1], err)
		}
		found[block[1]] = data
	}
	return found
}

type example struct {
	configs []byte
	pinned  Pinned
	asked   Question
	came    Answer
	trusted Trusted
}

func (e example) verify() (Lookup, error) {
	chain, err := VerifyChain(e.pinned, e.configs)
	if err != nil {
		return Lookup{}, err
	}
	_, found, err := chain.Verify(e.trusted, e.asked, e.came)
	return found, err
}

func answers(t *testing.T) map[string]example {
	blocks := examples(t)
	r := &reader{rest: blocks["configs"]}
	r.array(1, 1)
	config, _, _, err := signedConfig(r.bytes())
	if err != nil {
		t.Fatal(err)
	}
	pinned := Pinned{origin, config.Signer.Raw}
	profile := bytes.Replace(blocks["profile"], []byte("alice 1"), []byte("alice 2"), 1)
	about := func(block, label string, epoch uint64, now int64, profile []byte) example {
		return example{
			configs: blocks["configs"], pinned: pinned,
			asked: Question{Label: label, Now: now},
			came:  Answer{Epoch: epoch, Answer: blocks[block], Profile: profile},
		}
	}
	return map[string]example{
		"present": about("answer-present", present, 2, secondEpoch, profile),
		"absent":  about("answer-absent", absent, 2, secondEpoch, nil),
		"erased":  about("answer-erased", erased, 3, secondEpoch+1000, nil),
	}
}

func stepOf(t *testing.T, err error) string {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) {
		t.Fatalf("%v is not the error of a step", err)
	}
	return refused.Step
}

func TestTheExamplesOfFormats(t *testing.T) {
	all := answers(t)
	found, err := all["present"].verify()
	if err != nil {
		t.Fatal(err)
	}
	if found.Version != 2 || len(found.Profile) != 1 || string(found.Profile[0].Data) != "alice 2" {
		t.Fatalf("%+v", found)
	}
	if hex.EncodeToString(found.Index[:]) != presentIndex {
		t.Fatalf("%x", found.Index)
	}
	if found, err := all["absent"].verify(); err != nil || found.Version != 0 {
		t.Fatal(found, err)
	}
	if found, err := all["erased"].verify(); err != nil || !found.Erased || found.Profile != nil {
		t.Fatal(found, err)
	}
}

// TestEveryByteCounts changes a bit of every byte of an answer, and asks for a refusal each time.
func TestEveryByteCounts(t *testing.T) {
	steps := map[string]bool{}
	for name, whole := range answers(t) {
		unseen := bytes.Index(whole.came.Answer, unseenSignature(t))
		parts := map[string]*[]byte{
			"configs": &whole.configs, "answer": &whole.came.Answer, "profile": &whole.came.Profile,
		}
		for part, data := range parts {
			before := *data
			for position := range before {
				if part == "answer" && unseen >= 0 && position >= unseen && position < unseen+74 {
					continue
				}
				*data = bytes.Clone(before)
				(*data)[position] ^= 1 << (position % 8)
				if _, err := whole.verify(); err == nil {
					t.Errorf("%s: byte %d of the %s may be changed", name, position, part)
				} else {
					steps[stepOf(t, err)] = true
				}
			}
			*data = before
		}
	}
	for _, step := range []string{
		"answer", "config", "checkpoint", "map head", "vrf", "map", "opening", "commitment", "signatures",
	} {
		if !steps[step] {
			t.Errorf("no change was refused by the step %q", step)
		}
	}
}

// unseenSignature is the encoded signature of the second version by the key of the first: 8 and 64 bytes with a
// head of 2. Who has not seen the first version cannot know its key (step 9), so these bytes do not count.
func unseenSignature(t *testing.T) []byte {
	rotation, err := decodeMutation(examples(t)["mutation-rotation"])
	if err != nil {
		t.Fatal(err)
	}
	first := rotation.signatures[0]
	return appendBytes(bytes.Clone(first.key[:]), first.value)
}

// TestWholeLies are answers whose bytes are all good ones, for another question or another time.
func TestWholeLies(t *testing.T) {
	for name, lie := range map[string]struct {
		step string
		tell func(*example)
	}{
		"another label":       {"vrf", func(e *example) { e.asked.Label = erased }},
		"an epoch before":     {"map head", func(e *example) { e.asked.Epoch = 1 }},
		"another epoch":       {"map head", func(e *example) { e.came.Epoch = 1 }},
		"an old head":         {"freshness", func(e *example) { e.asked.Now += 60_000 + slack + 1 }},
		"a future head":       {"freshness", func(e *example) { e.asked.Now -= slack + 1 }},
		"another directory":   {"config", func(e *example) { e.pinned.Origin = "kt.example.org/others" }},
		"another key":         {"config", func(e *example) { e.pinned.key = make([]byte, 32) }},
		"a smaller log":       {"rollback", func(e *example) { e.trusted.Size = 3 }},
		"another log":         {"consistency", func(e *example) { e.trusted.Size = 2 }},
		"a log without proof": {"consistency", func(e *example) { e.trusted.Size = 1 }},
		"a needless proof":    {"consistency", func(e *example) { e.came.Consistency = [][]byte{make([]byte, 32)} }},
		"a withheld profile":  {"commitment", func(e *example) { e.came.Profile = nil }},
		"a withheld opening":  {"opening", withholdOpening},
		"a hidden entry":      {"map", hideEntry},
		"another profile": {"commitment", func(e *example) {
			e.came.Profile = EncodeProfile([]ProfileKey{{"laptop", "raw", []byte("mallory")}})
		}},
	} {
		e := answers(t)["present"]
		lie.tell(&e)
		if _, err := e.verify(); err == nil || stepOf(t, err) != lie.step {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// withholdOpening replaces the last field, 16 bytes, by null.
func withholdOpening(e *example) {
	answer := e.came.Answer
	e.came.Answer, e.came.Profile = append(slices.Clip(answer[:len(answer)-17]), null), nil
}

// hideEntry replaces mutation and opening by null.
func hideEntry(e *example) {
	decoded, _ := decodeAnswer(e.came.Answer)
	answer := e.came.Answer
	kept := len(answer) - 17 - len(appendBytes(nil, decoded.mutation))
	e.came.Answer, e.came.Profile = append(slices.Clip(answer[:kept]), null, null), nil
}

func TestOneEncodingOfEachValue(t *testing.T) {
	for _, wrong := range []string{
		"1801", "190001", "1a00000001", "1b0000000000000001", "1f", "1c", // numbers that are not in their shortest form
		"580141", "5f4141ff", "7f6161ff", "9f01ff", // lengths, indefinite ones
		"61ff", "c001", "20", "a0", "f4", "fa00000000", "", "0000", "8101", "42ff",
	} {
		data, err := hex.DecodeString(wrong)
		if err != nil {
			t.Fatal(err)
		}
		for kind, read := range map[string]func(*reader){
			"number": func(r *reader) { r.uint() }, "bytes": func(r *reader) { r.bytes() },
			"text": func(r *reader) { r.text() }, "array": func(r *reader) { r.array(0, 9) },
		} {
			r := &reader{rest: data}
			if read(r); r.end() == nil {
				t.Errorf("%s is read as %s", wrong, kind)
			}
		}
	}
	for _, number := range []uint64{0, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
		r := &reader{rest: appendHead(nil, majorUint, number)}
		if read := r.uint(); read != number || r.end() != nil {
			t.Errorf("%d is read as %d", number, read)
		}
	}
}

func TestMutationsAreMadeAsInFormats(t *testing.T) {
	blocks := examples(t)
	m, err := decodeMutation(blocks["mutation"])
	if err != nil {
		t.Fatal(err)
	}
	if err := m.checkSigners(origin); err != nil {
		t.Fatal(err)
	}
	opening, _ := hex.DecodeString("e682195ac566c12dad0bdcff8264c191")
	if Commitment(opening, present, 1, blocks["profile"]) != m.entry.commitment {
		t.Fatal("another commitment")
	}
	if keys, err := decodeProfile(blocks["profile"]); err != nil || !bytes.Equal(EncodeProfile(keys), blocks["profile"]) {
		t.Fatal(keys, err)
	}
	rotation, err := decodeMutation(blocks["mutation-rotation"])
	if err != nil {
		t.Fatal(err)
	}
	if err := rotation.checkSigners(origin); err != nil || rotation.entry.keys[0].Algorithm != algorithmP256 {
		t.Fatal(err)
	}
}
