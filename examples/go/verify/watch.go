package verify

import (
	"bytes"
	"errors"
	"fmt"
)

// PublishedHead is a message of WatchHeads as it came.
type PublishedHead struct {
	Epoch               uint64
	SMH                 []byte
	HeadsCheckpoint     string
	MutationsCheckpoint string
	Inclusion           [][]byte
	LatestCheckpoint    string
	Consistency         [][]byte
}

// Watch verifies the heads of a stream, one epoch after the other.
type Watch struct {
	chain   *Chain
	trusted Trusted
	// Roots that the directory signed for later sizes. The stream has to reach them.
	announced map[uint64]Hash
}

// NewWatch goes on after what is trusted, the last epoch of a verified answer. The stream must have been asked
// for the heads since trusted.Size.
func NewWatch(chain *Chain, trusted Trusted) *Watch {
	return &Watch{chain, trusted, map[uint64]Hash{}}
}

// Trusted is what is to be trusted after the last head.
func (w *Watch) Trusted() Trusted { return w.trusted }

// Since is the epoch after which the stream goes on.
func (w *Watch) Since() uint64 { return w.trusted.Size }

// Next verifies the next head. Its age is not checked, since a stream begins with old ones.
func (w *Watch) Next(came PublishedHead) (Head, error) {
	c := w.chain
	head, position, err := c.openHead(came.SMH)
	if err != nil {
		return Head{}, err
	}
	if head.Epoch != w.trusted.Size+1 || came.Epoch != head.Epoch {
		return Head{}, &Error{"map head", fmt.Errorf("epoch %d does not follow %d", head.Epoch, w.trusted.Size)}
	}
	proof, err := hashesOf(came.Consistency)
	if err != nil {
		return Head{}, &Error{"consistency", err}
	}
	checkpoint, added, err := c.log(w.trusted, position, came.HeadsCheckpoint, proof)
	if err != nil {
		return Head{}, err
	}
	if err := checkAppended(w.trusted.Checkpoint, checkpoint, added, leafHash(came.SMH)); err != nil {
		return Head{}, &Error{"map head", err}
	}
	if err := c.checkOrder(w.trusted, came.SMH, head, position); err != nil {
		return Head{}, err
	}
	if err := c.checkMutations(w.trusted, head, position, came.MutationsCheckpoint); err != nil {
		return Head{}, err
	}
	if err := w.checkLatest(came, head, position, checkpoint); err != nil {
		return Head{}, err
	}
	w.trusted = Trusted{checkpoint, max(position, w.trusted.Config), bytes.Clone(came.SMH)}
	return head, nil
}

// checkAppended checks that the log has one leaf more than before, and that it is the given one.
func checkAppended(before, after Checkpoint, added []Hash, leaf Hash) error {
	if after.Size != before.Size+1 {
		return errors.New("the checkpoint is not that of the head")
	}
	if before.Size == 0 {
		added = []Hash{after.Root}
	}
	if len(added) != 1 || added[0] != leaf {
		return errors.New("the head is not the one in the log of map heads")
	}
	return nil
}

// checkMutations checks that the head names the log of mutations that the directory signed.
func (c *Chain) checkMutations(trusted Trusted, head Head, position int, note string) error {
	log, err := c.open("/mutations", position, trusted, note)
	if err != nil {
		return err
	}
	if log != (Checkpoint{head.LogSize, head.LogRoot}) {
		return &Error{"map head", errors.New("the head names another log of mutations than its checkpoint")}
	}
	return nil
}

// checkLatest checks that the latest checkpoint has the head, and remembers where it must lead.
func (w *Watch) checkLatest(came PublishedHead, head Head, position int, own Checkpoint) error {
	latest, err := w.chain.open("/heads", position, w.trusted, came.LatestCheckpoint)
	if err != nil {
		return err
	}
	inclusion, err := hashesOf(came.Inclusion)
	if err != nil {
		return &Error{"map head", err}
	}
	if err := checkIncluded(latest, head.Epoch, came.SMH, inclusion); err != nil {
		return err
	}
	if root, isKnown := w.announced[latest.Size]; isKnown && root != latest.Root {
		return &Error{"consistency", errors.New("two logs of one size")}
	}
	w.announced[latest.Size] = latest.Root
	if root, isKnown := w.announced[own.Size]; isKnown && root != own.Root {
		return &Error{"consistency", errors.New("two logs of one size")}
	}
	delete(w.announced, own.Size)
	return nil
}
