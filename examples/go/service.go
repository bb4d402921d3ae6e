package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"kt-es/examples/go/ktv1"
	"kt-es/examples/go/verify"
)

const (
	patience = 20 * time.Second
	pause    = 500 * time.Millisecond
)

// retries sends a call again that found no front end, or one that was about to stop: docs/GRPC.md, "Retries".
// That is safe for every method, since the same mutation is the same submission.
const retries = `{"methodConfig": [{
	"name": [{"service": "kt.v1.DirectoryService"}, {"service": "grpc.health.v1.Health"}],
	"waitForReady": true,
	"retryPolicy": {
		"maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
	}
}]}`

// directory is a connection to the front end of a directory, and what it shows of its keys.
type directory struct {
	connection *grpc.ClientConn
	service    ktv1.DirectoryServiceClient
	pinned     verify.Pinned
	chain      *verify.Chain
}

// open connects to a front end, asks whether it is in service, and verifies the directory's keys.
//
// authority is a file with the certificates that are trusted, "" for those of the system.
func open(ctx context.Context, server string, pinned verify.Pinned, authority string, plain bool) (*directory, error) {
	security := insecure.NewCredentials()
	if !plain {
		roots, err := rootsIn(authority)
		if err != nil {
			return nil, err
		}
		security = credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	}
	connection, err := grpc.NewClient(server, grpc.WithTransportCredentials(security),
		grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return nil, err
	}
	d := &directory{connection: connection, service: ktv1.NewDirectoryServiceClient(connection), pinned: pinned}
	if err := d.begin(ctx); err != nil {
		connection.Close()
		return nil, err
	}
	return d, nil
}

func rootsIn(authority string) (*x509.CertPool, error) {
	if authority == "" {
		return x509.SystemCertPool()
	}
	data, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate", authority)
	}
	return roots, nil
}

func (d *directory) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	health := grpc_health_v1.NewHealthClient(d.connection)
	asked := &grpc_health_v1.HealthCheckRequest{Service: ktv1.DirectoryService_ServiceDesc.ServiceName}
	// This first call does not wait for a connection, so that a wrong address or certificate is reported at once.
	answer, err := health.Check(ctx, asked, grpc.WaitForReady(false))
	if err != nil {
		return explained(err)
	}
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("the front end is %v", answer.Status)
	}
	described, err := d.service.Describe(ctx, &ktv1.DescribeRequest{})
	if err != nil {
		return explained(err)
	}
	d.chain, err = verify.VerifyChain(d.pinned, described.Configs)
	return err
}

// lookup asks about a label and verifies the answer. epoch 0 is the latest one.
func (d *directory) lookup(
	ctx context.Context, trusted verify.Trusted, label string, epoch uint64,
) (verify.Trusted, verify.Lookup, error) {
	if err := checkLabel(label, d.chain.Policy()); err != nil {
		return trusted, verify.Lookup{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	came, err := d.service.Lookup(ctx, lookupRequest(trusted, label, epoch))
	if err != nil {
		return trusted, verify.Lookup{}, explained(err)
	}
	asked := verify.Question{Label: label, Epoch: epoch, Now: time.Now().UnixMilli()}
	return d.chain.Verify(trusted, asked, answerOf(came))
}

func lookupRequest(trusted verify.Trusted, label string, epoch uint64) *ktv1.LookupRequest {
	request := &ktv1.LookupRequest{Label: label}
	if epoch != 0 {
		request.Epoch = &epoch
	}
	if trusted.Size != 0 {
		request.Since = &trusted.Size
	}
	return request
}

func answerOf(came *ktv1.LookupResponse) verify.Answer {
	return verify.Answer{
		Epoch: came.Epoch, Answer: came.Answer, Profile: came.Profile, Consistency: came.Consistency,
	}
}

// watch verifies count heads as they are published, and calls then with each and with what is trusted after it.
func (d *directory) watch(
	ctx context.Context, trusted verify.Trusted, count int, then func(verify.Head, verify.Trusted) error,
) error {
	watch := verify.NewWatch(d.chain, trusted)
	for count > 0 {
		since := watch.Since()
		stream, err := d.service.WatchHeads(ctx, &ktv1.WatchHeadsRequest{Since: &since})
		if err != nil {
			return explained(err)
		}
		for count > 0 {
			came, err := stream.Recv()
			if err != nil {
				// The stream ends now and then, and goes on where it was left.
				if ctx.Err() == nil && isPassing(err) {
					time.Sleep(pause)
					break
				}
				return explained(err)
			}
			head, err := watch.Next(publishedHead(came))
			if err != nil {
				return err
			}
			if err := then(head, watch.Trusted()); err != nil {
				return err
			}
			count--
		}
	}
	return nil
}

func publishedHead(came *ktv1.WatchHeadsResponse) verify.PublishedHead {
	head := came.GetHead()
	return verify.PublishedHead{
		Epoch: head.GetEpoch(), SMH: head.GetSmh(), HeadsCheckpoint: head.GetHeadsCheckpoint(),
		MutationsCheckpoint: head.GetMutationsCheckpoint(), Inclusion: head.GetInclusion(),
		LatestCheckpoint: head.GetLatestCheckpoint(), Consistency: came.GetConsistency(),
	}
}

// checkLabel accepts labels that FORMATS, "Labels" leaves as they are. Others have to be normalized first, with
// the tables of Unicode 14.0.0, before their VRF proof can be verified.
func checkLabel(label, policy string) error {
	for _, character := range label {
		if character < ' ' || character > '~' {
			return errors.New("this program takes only labels of printable ASCII")
		}
	}
	isLower := label == strings.ToLower(label) && !strings.Contains(label, "xn--")
	if label == "" || len(label) > 255 || strings.TrimSpace(label) != label || (policy == "email" && !isLower) {
		return errors.New("this program takes only normalized labels: small letters, no space around")
	}
	return nil
}

// isPassing returns whether a stream may be asked for again: it ended, or its front end or connection did.
func isPassing(err error) bool {
	code := status.Code(err)
	return errors.Is(err, io.EOF) || code == codes.Unavailable || code == codes.Canceled
}

// explained adds to a failed call why it failed: docs/GRPC.md, "Failures".
func explained(err error) error {
	failed, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			err = fmt.Errorf("%s: %w", detail.Reason, err)
		case *errdetails.RetryInfo:
			err = fmt.Errorf("%w; try again after %v", err, detail.RetryDelay.AsDuration())
		case *ktv1.Verdict:
			err = fmt.Errorf("%w; decided in epoch %d", err, detail.Epoch)
		}
	}
	return err
}
