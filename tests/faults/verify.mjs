// Verifies webhooks with the JavaScript implementation of Standard Webhooks: for each line of JSON on stdin a line, `true` or the error.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.argv[2]);

for await (const line of createInterface({ input: process.stdin })) {
  const { headers, body } = JSON.parse(line);
  try {
    webhook.verify(Buffer.from(body, "base64"), headers);
    console.log("true");
  } catch (error) {
    console.log(error.message.replaceAll(" ", "_"));
  }
}
