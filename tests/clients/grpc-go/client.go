// A client that protoc-gen-go and protoc-gen-go-grpc make of the contract, with gRPC's own settings.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	orchestrator "concerto/orchestrator/v1"
	sessions "concerto/sessions/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const mebibyte = 1 << 20

var (
	options  = grpc.WithTransportCredentials(insecure.NewCredentials())
	signedIn = metadata.AppendToOutgoingContext(
		context.Background(), "authorization", "Bearer "+os.Getenv("CONCERTO_TOKEN"))
	failed bool
)

func main() {
	sessionsConnection := connect("CONCERTO_SESSIONS_TARGET")
	orchestratorConnection := connect("CONCERTO_ORCHESTRATOR_TARGET")
	client := sessions.NewSessionsServiceClient(sessionsConnection)
	answering := orchestrator.NewOrchestratorServiceClient(orchestratorConnection)

	feature("an rpc with a token", func() error {
		created, err := client.CreateSession(signedIn, &sessions.CreateSessionRequest{Name: "Études"})
		if err != nil {
			return err
		}
		found, err := client.GetSession(signedIn, &sessions.GetSessionRequest{SessionId: created.Session.Id})
		if err != nil {
			return err
		}
		return expect(found.Session.Name == "Études", "it is called %q", found.Session.Name)
	})
	feature("five mebibytes, stored and read in pages", func() error { return large(client) })
	feature("an answer, event by event", func() error { return turn(client, answering) })
	feature("errors have a reason", func() error {
		unknown := "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"
		_, err := client.GetSession(signedIn, &sessions.GetSessionRequest{SessionId: unknown})
		if err := reason(err, codes.NotFound, "SESSION_NOT_FOUND"); err != nil {
			return err
		}
		_, err = client.GetSession(context.Background(), &sessions.GetSessionRequest{SessionId: unknown})
		if err := reason(err, codes.Unauthenticated, "TOKEN_MISSING"); err != nil {
			return err
		}
		stream, err := answering.StreamRun(signedIn, &orchestrator.StreamRunRequest{RunId: unknown})
		if err == nil {
			_, err = stream.Recv()
		}
		return reason(err, codes.NotFound, "RUN_NOT_FOUND")
	})
	feature("a deadline of a millisecond", func() error {
		for range 50 {
			soon, cancel := context.WithTimeout(signedIn, time.Millisecond)
			_, err := client.ListSessions(soon, &sessions.ListSessionsRequest{})
			cancel()
			if err != nil && status.Code(err) != codes.DeadlineExceeded {
				return err
			}
		}
		return nil
	})
	feature("a silent stream with a ping every 10 s", silent)
	if failed {
		os.Exit(1)
	}
}

func connect(name string, further ...grpc.DialOption) *grpc.ClientConn {
	connection, err := grpc.NewClient(os.Getenv(name), append(further, options)...)
	if err != nil {
		panic(err)
	}
	return connection
}

func large(client sessions.SessionsServiceClient) error {
	created, err := client.CreateSession(signedIn, &sessions.CreateSessionRequest{})
	if err != nil {
		return err
	}
	message := &sessions.NewMessage{Role: sessions.Role_ROLE_USER, Content: strings.Repeat("x", mebibyte)}
	appended, err := client.AppendMessages(signedIn, &sessions.AppendMessagesRequest{
		SessionId: created.Session.Id,
		Messages:  []*sessions.NewMessage{message, message, message, message, message},
	})
	if err != nil {
		return err
	}
	if err := expect(len(appended.Messages) == 5 && appended.Messages[4].Order == 5, "it answers otherwise"); err != nil {
		return err
	}
	size, token := 0, ""
	for {
		page, err := client.ListMessages(signedIn, &sessions.ListMessagesRequest{
			SessionId: created.Session.Id, PageToken: token,
		})
		if err != nil {
			return err
		}
		for _, message := range page.Messages {
			size += len(message.Content)
		}
		if token = page.NextPageToken; token == "" {
			return expect(size == 5*mebibyte, "%d bytes came back", size)
		}
	}
}

func turn(client sessions.SessionsServiceClient, answering orchestrator.OrchestratorServiceClient) error {
	created, err := client.CreateSession(signedIn, &sessions.CreateSessionRequest{})
	if err != nil {
		return err
	}
	stream, err := answering.StreamTurn(signedIn, &orchestrator.StreamTurnRequest{
		SessionId: created.Session.Id, Turn: &sessions.Turn{Content: "Hello"},
	})
	if err != nil {
		return err
	}
	var said strings.Builder
	state := sessions.RunState_RUN_STATE_UNSPECIFIED
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		said.WriteString(answer.Event.GetMessageDelta().GetText())
		if finished := answer.Event.GetRunFinished(); finished != nil {
			state = finished.State
		}
	}
	isWhole := state == sessions.RunState_RUN_STATE_SUCCEEDED && strings.HasPrefix(said.String(), "You said: Hello")
	return expect(isWhole, "%v: %q", state, said.String())
}

// A health watch says something once; the pings alone keep the connection from being silent. The third one that a server
// finds too early would end it.
func silent() error {
	connection := connect("CONCERTO_SESSIONS_TARGET", grpc.WithKeepaliveParams(
		keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
	defer connection.Close()
	watched, cancel := context.WithTimeout(context.Background(), 45*time.Second)
	defer cancel()
	stream, err := grpc_health_v1.NewHealthClient(connection).Watch(watched, &grpc_health_v1.HealthCheckRequest{
		Service: "concerto.sessions.v1.SessionsService",
	})
	if err != nil {
		return err
	}
	for err == nil {
		_, err = stream.Recv()
	}
	return expect(status.Code(err) == codes.DeadlineExceeded, "it ended with %v", err)
}

func reason(err error, code codes.Code, wanted string) error {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Reason == wanted && status.Code(err) == code {
			return nil
		}
	}
	return fmt.Errorf("%v instead of %s", err, wanted)
}

func expect(holds bool, format string, values ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, values...)
}

func feature(name string, try func() error) {
	var failure *string
	if err := try(); err != nil {
		text := err.Error()
		failure, failed = &text, true
	}
	line, _ := json.Marshal(map[string]any{"feature": name, "failure": failure})
	fmt.Println(string(line))
}
