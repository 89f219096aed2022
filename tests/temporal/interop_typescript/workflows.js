// Hosts of streams, with the official library.
const { condition, defineSignal, setHandler } = require('@temporalio/workflow');
const { WorkflowStream } = require('@temporalio/workflow-streams/workflow');

const close = defineSignal('close');
const say = defineSignal('say');
const roll = defineSignal('roll');

// Hosts a stream until it is told to stop; continues as new when it is told to roll.
exports.TypeScriptHub = async function TypeScriptHub(input) {
  const stream = new WorkflowStream(input?.stream_state);
  let open = true;
  let rolling = false;
  setHandler(close, () => { open = false; });
  setHandler(roll, () => { rolling = true; });
  setHandler(say, (topic, values) => {
    for (const value of values) stream.topic(topic).publish(value);
  });
  await condition(() => !open || rolling);
  if (open) await stream.continueAsNew((state) => [{ stream_state: state }]);
};
