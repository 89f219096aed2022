// Verifies the signatures of webhooks with Node's own cryptography: for each line of JSON on stdin, a line `true` or `false`.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createInterface } from "node:readline";

const key = Buffer.from(process.argv[2].replace(/^whsec_/, ""), "base64");

for await (const line of createInterface({ input: process.stdin })) {
  const { id, timestamp, signature, body } = JSON.parse(line);
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), Buffer.from(body, "base64")]);
  const made = createHmac("sha256", key).update(content).digest();
  const given = signature.split(" ").map((one) => Buffer.from(one.replace(/^v1,/, ""), "base64"));
  console.log(given.some((one) => one.length === made.length && timingSafeEqual(one, made)));
}
