// Graphile Worker; what is asked and answered: ../protocol.py. Default: 8 at a time, all else as it comes. Fast: a local
// queue of 500 and completions in batches, as its own performance page has it.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.env.PEER_MODULES}/`));
const { Logger, makeWorkerUtils, run } = await import(pathToFileURL(require.resolve("graphile-worker")));
const logger = new Logger(() => () => {});
const [command, dsn, ...rest] = process.argv.slice(2);
const now = () => Number(process.hrtime.bigint());
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const payload = { n: 1 };
const configurations = {
  default: {},
  fast: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
};

const utils = (size = 1) => makeWorkerUtils({ connectionString: dsn, maxPoolSize: size, logger });

const commands = {
  async install() {
    const made = await utils();
    await made.migrate();
    await made.release();
    return null;
  },

  async fill(count) {
    const made = await utils();
    const began = performance.now();
    for (let left = Number(count); left > 0; left -= 5000) {
      await made.addJobs(Array.from({ length: Math.min(left, 5000) }, () => ({ identifier: "noop", payload })));
    }
    const seconds = (performance.now() - began) / 1000;
    await made.release();
    return seconds;
  },

  async submit(clients, seconds) {
    const all = await Promise.all(Array.from({ length: Number(clients) }, () => utils()));
    await Promise.all(all.map((made) => made.addJob("noop", payload)));
    const began = performance.now();
    const until = began + Number(seconds) * 1000;
    let done = 0;
    await Promise.all(all.map(async (made) => {
      for (; performance.now() < until; done += 1) await made.addJob("noop", payload);
    }));
    const rate = (done / (performance.now() - began)) * 1000;
    await Promise.all(all.map((made) => made.release()));
    return rate;
  },

  async trickle(count) {
    const made = await utils();
    const returned = [];
    for (let n = 0; n < Number(count); n += 1) {
      await made.addJob("noop", payload);
      returned.push(now());
      await pause(30);
    }
    await made.release();
    return returned;
  },

  async worker(configuration, until) {
    const times = [];
    const runner = await run({
      connectionString: dsn, noHandleSignals: true, logger,
      taskList: { noop: () => { times.push(now()); } },
      preset: { worker: { concurrentJobs: 8, ...configurations[configuration] } },
    });
    console.log("ready");
    if (until === "told") {
      const lines = createInterface({ input: process.stdin });
      await new Promise((done) => lines.once("close", done));
    } else {
      for (let before = -1; !times.length || times.length !== before;) {
        before = times.length;
        await pause(700);
      }
    }
    await runner.stop();
    return times;
  },
};

const answered = await commands[command](...rest);
process.stdout.write(`${JSON.stringify(answered)}\n`, () => process.exit(0));
