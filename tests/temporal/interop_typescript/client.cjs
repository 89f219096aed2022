// A client of one stream: node client.cjs ADDRESS WORKFLOW publish|subscribe. Values go as JSON, one a line; bytes as
// {"$bytes": HEX}. `publish` sends what it reads; `subscribe` writes what it gets until the stream ends.
const readline = require('node:readline');
const { Client, Connection } = require('@temporalio/client');
const { WorkflowStreamClient } = require('@temporalio/workflow-streams/client');

async function publish(stream) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [topic, value] = JSON.parse(line);
    stream.topic(topic).publish(value?.$bytes === undefined ? value : new Uint8Array(Buffer.from(value.$bytes, 'hex')));
  }
  await stream[Symbol.asyncDispose]();
}

async function subscribe(stream) {
  for await (const { topic, data, offset } of stream.subscribe(undefined, 0, { resultType: true })) {
    const value = data instanceof Uint8Array ? { $bytes: Buffer.from(data).toString('hex') } : data;
    console.log(JSON.stringify([topic, value ?? null, offset]));
  }
}

async function main(address, workflowId, role) {
  const connection = await Connection.connect({ address });
  const stream = WorkflowStreamClient.create(new Client({ connection }), workflowId, { batchInterval: 20 });
  await (role === 'publish' ? publish : subscribe)(stream);
  await connection.close();
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
