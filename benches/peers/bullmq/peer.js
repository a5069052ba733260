// Runs the queue workload on BullMQ and prints the result as one JSON object: the same steps and checks as src/queue/drive.rs.
//
// A worker of the workload is one of BullMQ's own, which has as many jobs at work as the others take in a batch.

"use strict";

const { randomBytes } = require("node:crypto");
const { parseArgs } = require("node:util");
const { Queue, Worker } = require("bullmq");

const NUMBER = 20;
const STALLED_AFTER = 30_000;

function arguments_() {
  const text = { type: "string" };
  const options = { address: text, queue: text, workers: text, batch: text, body: text, messages: text };
  const { values } = parseArgs({ options });
  const count = (name) => Number.parseInt(values[name], 10);
  const { hostname, port } = new URL(values.address);
  return {
    connection: { host: hostname, port: Number(port) },
    queue: values.queue,
    workers: count("workers"),
    batch: count("batch"),
    messages: count("messages"),
    body: count("body"),
  };
}

function body(number, length) {
  const unlike = randomBytes(Math.ceil(length / 2)).toString("hex");
  return (String(number).padStart(NUMBER, "0") + unlike).slice(0, Math.max(length, NUMBER));
}

class Ledger {
  constructor(bodies) {
    this.bodies = bodies;
    this.seen = new Uint8Array(bodies.length);
    this.arrived = 0;
    this.duplicates = 0;
  }

  check(text) {
    const number = Number.parseInt(text.slice(0, NUMBER), 10);
    if (this.bodies[number] !== text) {
      throw new Error(`message ${number} arrived with another body than it was sent with`);
    }
    this.seen[number] += 1;
    if (this.seen[number] === 1) this.arrived += 1;
    else this.duplicates += 1;
  }
}

function secondsSince(started) {
  return Number(process.hrtime.bigint() - started) / 1e9;
}

async function send(queue, bodies, { workers, batch }) {
  const produce = async (worker) => {
    for (let start = worker * batch; start < bodies.length; start += batch * workers) {
      await queue.addBulk(bodies.slice(start, start + batch).map((data) => ({ name: "work", data })));
    }
  };
  const started = process.hrtime.bigint();
  await Promise.all(Array.from({ length: workers }, (_, worker) => produce(worker)));
  return secondsSince(started);
}

// Until every job is completed, which is later than that it arrived.
async function drain(ledger, { connection, queue, workers, batch, messages }) {
  let completed = 0;
  let failure;
  let end;
  const ended = new Promise((resolve) => (end = resolve));
  const work = async (job) => ledger.check(job.data);
  const options = { connection, concurrency: batch, autorun: false, removeOnComplete: { count: 0 } };
  const consumers = Array.from({ length: workers }, () => new Worker(queue, work, options));
  const fail = (error) => end((failure ??= error));
  for (const consumer of consumers) {
    consumer.on("completed", () => (completed += 1) === messages && end());
    consumer.on("failed", (_, error) => fail(error));
    consumer.on("error", fail);
  }
  await Promise.all(consumers.map((consumer) => consumer.waitUntilReady()));

  let before = -1;
  const stalled = setInterval(() => {
    if (completed === before) fail(new Error(`${completed} of ${messages} jobs were completed, then none`));
    before = completed;
  }, STALLED_AFTER);
  const started = process.hrtime.bigint();
  for (const consumer of consumers) consumer.run().catch(fail);
  await ended;
  const seconds = secondsSince(started);
  clearInterval(stalled);
  // They wait for more jobs by a blocking call: not for the end of that.
  await Promise.all(consumers.map((consumer) => consumer.close(true)));
  if (failure) throw failure;
  return seconds;
}

async function main() {
  const options = arguments_();
  const bodies = Array.from({ length: options.messages }, (_, number) => body(number, options.body));
  const ledger = new Ledger(bodies);
  const queue = new Queue(options.queue, {
    connection: options.connection,
    defaultJobOptions: { removeOnComplete: true },
  });
  await queue.waitUntilReady();
  const sendSeconds = await send(queue, bodies, options);
  const drainSeconds = await drain(ledger, options);
  const counts = await queue.getJobCounts();
  const round = {
    send_seconds: sendSeconds,
    drain_seconds: drainSeconds,
    delivered: ledger.arrived,
    duplicates: ledger.duplicates,
    left: Object.values(counts).reduce((sum, count) => sum + count, 0),
    settings: "",
  };
  await queue.obliterate({ force: true });
  await queue.close();
  console.log(JSON.stringify(round));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.message ?? error);
    process.exit(1);
  },
);
