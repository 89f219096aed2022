// Both sides of a stream with the official library, each a command:
//
//	interop ADDRESS worker QUEUE        hosts GoHub; says "ready" when it polls; ends when its input does
//	interop ADDRESS publish WORKFLOW    publishes what it reads: [TOPIC, VALUE] as JSON, one a line
//	interop ADDRESS subscribe WORKFLOW  writes what it gets until the stream ends: [TOPIC, VALUE, OFFSET], likewise
//
// Bytes are {"$bytes": HEX}.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/workflowstreams"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

type bytesValue struct {
	Hex *string `json:"$bytes"`
}

type hubInput struct {
	StreamState *workflowstreams.WorkflowStreamState `json:"stream_state"`
}

// GoHub hosts a stream until it is told to stop; continues as new when it is told to roll.
func GoHub(ctx workflow.Context, input hubInput) error {
	stream, err := workflowstreams.NewWorkflowStream(ctx, input.StreamState)
	if err != nil {
		return err
	}
	rolling := false
	workflow.NewSelector(ctx).
		AddReceive(workflow.GetSignalChannel(ctx, "close"), func(channel workflow.ReceiveChannel, _ bool) {
			channel.Receive(ctx, nil)
		}).
		AddReceive(workflow.GetSignalChannel(ctx, "roll"), func(channel workflow.ReceiveChannel, _ bool) {
			channel.Receive(ctx, nil)
			rolling = true
		}).
		Select(ctx)
	if !rolling {
		return nil
	}
	return stream.NewContinueAsNewError(ctx, GoHub, func(state *workflowstreams.WorkflowStreamState) []any {
		return []any{hubInput{StreamState: state}}
	})
}

func host(temporal client.Client, queue string) error {
	hub := worker.New(temporal, queue, worker.Options{})
	hub.RegisterWorkflow(GoHub)
	if err := hub.Start(); err != nil {
		return err
	}
	defer hub.Stop()
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func publish(ctx context.Context, stream *workflowstreams.Client) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var line [2]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return err
		}
		var topic string
		if err := json.Unmarshal(line[0], &topic); err != nil {
			return err
		}
		value, err := decoded(line[1])
		if err != nil {
			return err
		}
		stream.Topic(topic).Publish(value, false)
	}
	return stream.Close(ctx)
}

func subscribe(ctx context.Context, stream *workflowstreams.Client) error {
	lines := json.NewEncoder(os.Stdout)
	for item, err := range stream.Subscribe(ctx, workflowstreams.SubscribeOptions{}) {
		if err != nil {
			return err
		}
		if err := lines.Encode([]any{item.Topic, plain(item.Data), item.Offset}); err != nil {
			return err
		}
	}
	return nil
}

func decoded(text json.RawMessage) (any, error) {
	var bytes bytesValue
	if json.Unmarshal(text, &bytes) == nil && bytes.Hex != nil {
		return hex.DecodeString(*bytes.Hex)
	}
	var value any
	err := json.Unmarshal(text, &value)
	return value, err
}

func plain(payload *common.Payload) any {
	switch string(payload.Metadata["encoding"]) {
	case "binary/null":
		return nil
	case "binary/plain":
		text := hex.EncodeToString(payload.Data)
		return bytesValue{Hex: &text}
	default:
		return json.RawMessage(payload.Data)
	}
}

func run(address, role, name string) error {
	ctx := context.Background()
	// What it logs by itself goes where our lines go.
	quiet := sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	temporal, err := client.Dial(client.Options{HostPort: address, Logger: quiet})
	if err != nil {
		return err
	}
	defer temporal.Close()
	if role == "worker" {
		return host(temporal, name)
	}
	stream := workflowstreams.NewClient(temporal, name, workflowstreams.Options{BatchInterval: 20 * time.Millisecond})
	if role == "publish" {
		return publish(ctx, stream)
	}
	return subscribe(ctx, stream)
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}
