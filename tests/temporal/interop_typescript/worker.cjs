// A worker for `workflows.js`: node worker.cjs ADDRESS QUEUE. Says "ready" when it polls; ends when its input does.
const { NativeConnection, Runtime, DefaultLogger, Worker } = require('@temporalio/worker');

async function main(address, taskQueue) {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  const connection = await NativeConnection.connect({ address });
  const worker = await Worker.create({ connection, taskQueue, workflowsPath: require.resolve('./workflows.js') });
  process.stdin.on('end', () => worker.shutdown()).resume();
  console.log('ready');
  await worker.run();
  await connection.close();
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
