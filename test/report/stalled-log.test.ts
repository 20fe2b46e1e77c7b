// Whoever reads standard error stalls: neither side notices, nobody is failed over for it, and a side can be ended.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, closeSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { Cleanup } from '../support/cleanup.js';
import { Fifo, MAY_MOUNT, smallDisk } from '../support/strangers.js';
import { until } from '../support/until.js';
import { clusterOf } from '../cli/agent.js';
import { Agent, type AgentOptions } from '../service/agent.js';

const LOG_MODULE = new URL('../../src/report/log.js', import.meta.url).href;

describe('service: a log that stalls', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  const START_MS = 30_000;
  const CHANGES = { domain: { checkpoint: { intervalMs: 20 } } };

  async function primary(cluster: object, options: AgentOptions = {}): Promise<Agent> {
    const agent = await Agent.start(cleanup, 'alpha', cluster, options);
    await until('the primary listens', () => agent.count('listening') > 0, START_MS);
    return agent;
  }

  const strangers: readonly (readonly [string, () => Promise<AgentOptions>])[] = [
    ['a pipe', async () => ({ stderr: (await Fifo.open(cleanup)).fill().blocking(cleanup) })],
    ['a socket', () => Promise.resolve({ stderr: 'pipe' })],
    ['a terminal', () => Promise.resolve({ terminal: true })],
  ];

  for (const [what, options] of strangers) {
    it(`${what}, of the secondary: it takes over`, async () => {
      const cluster = await clusterOf(cleanup, CHANGES);
      const living = await primary(cluster);
      const secondary = await Agent.start(cleanup, 'beta', cluster, await options());
      // Its reader: nobody, or one that stands still before there is much to read.
      if (what === 'a terminal') {
        await until('it runs', () => secondary.count('listening') > 0, START_MS);
        secondary.process.kill('SIGSTOP');
      }
      await until('commits', () => secondary.count('commit') > 100, START_MS);
      await living.kill();
      await until('failover', () => secondary.phases.includes('completed'), START_MS);
    });

    it(`${what}, of the primary: checkpoints go on, nobody takes over, and it ends when it is told to`, async () => {
      const cluster = await clusterOf(cleanup, CHANGES);
      const stalled = await primary(cluster, await options());
      if (what === 'a terminal') stalled.process.kill('SIGSTOP');
      const secondary = await Agent.start(cleanup, 'beta', cluster);
      await until('checkpoints', () => stalled.count('checkpoint') > 200, START_MS);
      expect(secondary.phases).to.deep.equal([]);
      if (what === 'a terminal') return; // the process here is who reads it
      const told = performance.now();
      stalled.process.kill('SIGINT');
      await until('the end', () => stalled.ended);
      expect(performance.now() - told).to.be.lessThan(8000);
      expect(stalled.process.exitCode).to.equal(0);
    });
  }

  /** Logs 30,000 lines, says when it has, and then one more line at each message; ends when the channel does. */
  const MANY = `
    import { createLogger, logLinesDropped } from ${JSON.stringify(LOG_MODULE)};
    const log = createLogger({ level: 'trace', format: 'json' });
    let n = 0;
    const some = () => {
      for (let k = 0; k < 1000; k++) log.info({ n: n++ }, 'a line that is as long as lines of a log are, more or less');
      if (n < 30_000) setImmediate(some);
      else process.send({ n, dropped: logLinesDropped() });
    };
    some();
    process.on('message', () => { log.info({ n: n++ }, 'one more'); if (process.connected) process.send({ n, dropped: logLinesDropped() }, undefined, undefined, () => undefined); });
    process.on('disconnect', () => process.exit(7));
  `;

  interface Said {
    readonly n: number;
    readonly dropped: number;
  }

  function logging(stderr: number | 'pipe') {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', MANY], {
      stdio: ['ignore', 'ignore', stderr, 'ipc'],
    });
    cleanup.add(() => child.kill('SIGKILL'));
    const said: Said[] = [];
    child.on('message', (message) => said.push(message as Said));
    return { child, said };
  }

  function parsed(text: string): Record<string, unknown>[] {
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  it('keeps the newest lines, and says how many it has dropped, where they were', async () => {
    const fifo = (await Fifo.open(cleanup)).fill();
    const { child, said } = logging(fifo.blocking(cleanup));
    await until('all is logged', () => said.length === 1, START_MS);
    expect(said[0]?.dropped).to.be.within(1000, 29_999);
    let text = '';
    const last = () => text.includes('"n":29999');
    await until('the last line', () => {
      text += fifo.drain();
      return last();
    });
    const lines = parsed(text);
    const dropped = lines.reduce((sum, line) => sum + Number(line['linesDropped'] ?? 0), 0);
    const numbers = lines.flatMap((line) => (typeof line['n'] === 'number' ? [line['n']] : []));
    expect(dropped).to.equal(said[0]?.dropped);
    expect(numbers.length + dropped).to.equal(30_000);
    expect(numbers).to.deep.equal([...numbers].sort((a, b) => a - b));
    // Kept within its limit.
    expect(text.length).to.be.lessThan(1.3 * 2 ** 20);
    child.send('one more');
    await until('one more', () => {
      text += fifo.drain();
      return text.includes('one more');
    });
    const exit = once(child, 'exit');
    child.disconnect();
    expect((await exit)[0]).to.equal(7);
  });

  it('ends although nobody reads', async () => {
    const { child, said } = logging((await Fifo.open(cleanup)).fill().blocking(cleanup));
    await until('all is logged', () => said.length === 1, START_MS);
    const exit = once(child, 'exit');
    const told = performance.now();
    child.disconnect();
    expect((await exit)[0]).to.equal(7);
    expect(performance.now() - told).to.be.lessThan(3000);
  });

  it('a file gets all of it, also the lines before a crash', async () => {
    const path = `${await cleanup.directory()}/log`;
    const fd = openSync(path, 'a');
    const child = spawn(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        MANY.replaceAll('30_000', '1000').replace(
          'else process',
          "else process.kill(process.pid, 'SIGKILL'), process",
        ),
      ],
      { stdio: ['ignore', 'ignore', fd, 'ipc'] },
    );
    closeSync(fd);
    await once(child, 'exit');
    const count = () => parsed(readFileSync(path, 'utf8').replace(/[^\n]*$/, '')).length;
    await until('the first lines', () => count() > 50);
  });

  it('a file on a full disk costs lines, not time', async function () {
    if (!MAY_MOUNT) this.skip();
    const disk = await smallDisk(cleanup, '64k');
    const fd = openSync(`${disk}/log`, 'a');
    cleanup.add(() => closeSync(fd));
    const { child, said } = logging(fd);
    await until('all is logged', () => said.length === 1, START_MS);
    await until('lost lines are counted', () => {
      child.send('one more');
      return (said.at(-1)?.dropped ?? 0) > 10_000;
    });
    const exit = once(child, 'exit');
    child.disconnect();
    expect((await exit)[0]).to.equal(7);
  });
});
