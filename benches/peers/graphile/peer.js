// Runs the queue workload on graphile-worker and prints the result as one JSON object: the same steps and checks as src/queue/drive.rs.

"use strict";

const { randomBytes } = require("node:crypto");
const { parseArgs } = require("node:util");
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { Pool } = require("pg");

const NUMBER = 20;
const STALLED_AFTER = 30_000;
// As many jobs at work as pay, and enough fetched ahead for them.
const AT_WORK = 24;
const AHEAD = 500;

function arguments_() {
  const text = { type: "string" };
  const options = { address: text, queue: text, workers: text, batch: text, body: text, messages: text };
  const { values } = parseArgs({ options });
  const count = (name) => Number.parseInt(values[name], 10);
  return {
    address: values.address,
    schema: values.queue.replaceAll("-", "_"),
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

async function send(utils, bodies, { workers, batch }) {
  const produce = async (worker) => {
    for (let start = worker * batch; start < bodies.length; start += batch * workers) {
      await utils.addJobs(bodies.slice(start, start + batch).map((text) => ({ identifier: "work", payload: { text } })));
    }
  };
  const started = process.hrtime.bigint();
  await Promise.all(Array.from({ length: workers }, (_, worker) => produce(worker)));
  return secondsSince(started);
}

// Until every job is gone from the table, which is later than that it ran.
async function drain(pool, ledger, { schema, messages }) {
  const taskList = { work: async ({ text }) => ledger.check(text) };
  const worker = {
    schema,
    concurrentJobs: AT_WORK,
    maxPoolSize: 10,
    localQueue: { size: AHEAD },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger: new Logger(() => () => {}),
  };
  const started = process.hrtime.bigint();
  const runner = await run({ pgPool: pool, taskList, noHandleSignals: true, preset: { worker } });
  let [before, since, left] = [-1, Date.now(), messages];
  while (left > 0) {
    if (ledger.arrived !== before) [before, since] = [ledger.arrived, Date.now()];
    if (Date.now() - since > STALLED_AFTER) throw new Error(`${before} of ${messages} jobs ran, then none`);
    await new Promise((resolve) => setTimeout(resolve, 5));
    if (ledger.arrived === messages) left = await count(pool, schema);
  }
  const seconds = secondsSince(started);
  await runner.stop();
  return seconds;
}

async function count(pool, schema) {
  const { rows } = await pool.query(`SELECT count(*)::int AS count FROM ${schema}._private_jobs`);
  return rows[0].count;
}

async function main() {
  const options = arguments_();
  const bodies = Array.from({ length: options.messages }, (_, number) => body(number, options.body));
  const ledger = new Ledger(bodies);
  const pool = new Pool({ connectionString: options.address, max: 10 });
  const utils = await makeWorkerUtils({ pgPool: pool, schema: options.schema, logger: new Logger(() => () => {}) });
  await utils.migrate();
  const sendSeconds = await send(utils, bodies, options);
  const drainSeconds = await drain(pool, ledger, options);
  const left = await count(pool, options.schema);
  await pool.query(`DROP SCHEMA ${options.schema} CASCADE`);
  const round = {
    send_seconds: sendSeconds,
    drain_seconds: drainSeconds,
    delivered: ledger.arrived,
    duplicates: ledger.duplicates,
    left,
    settings: "",
  };
  console.log(JSON.stringify(round));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.stack ?? error);
    process.exit(1);
  },
);
