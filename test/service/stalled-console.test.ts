// Whoever reads a console stalls, or its disk is full: that costs its own domain, in the end, and nothing else; and
// nothing of what was let out is lost, torn or doubled, nor said by a primary that was replaced.

import {
  closeSync,
  constants,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { expect } from 'chai';
import { codeOf } from '../../src/errors.js';
import { PIECE_BYTES } from '../../src/output/outlet.js';
import { Cleanup } from '../support/cleanup.js';
import { Fifo, hungFile, MAY_MOUNT, smallDisk } from '../support/strangers.js';
import { childrenOf, stopProcesses } from '../support/processes.js';
import { until } from '../support/until.js';
import { Child } from './child.js';
import type { Reach } from './hosts.js';
import { lineOf, LINE_BYTES } from './memory-guest.js';
import { fileText, TestPrimary, TestSecondary, type PrimaryChanges } from './world.js';

const LIMIT = 16 * 1024;
/** What a domain may say between the pressure and its standing still: its turn, a few times. */
const SLACK = 100 * 20 * LINE_BYTES;

describe('service: consoles that stall', function () {
  this.timeout(40_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function childOf(changes: PrimaryChanges, stdout: number | 'inherit' = 'inherit'): Promise<Child> {
    const registers = await cleanup.directory();
    const child = Child.primary({ checkpoint: { intervalMs: 5 }, ...changes, registers }, stdout);
    cleanup.add(() => child.kill());
    await until('the primary listens', () => child.port > 0);
    return child;
  }

  async function secondaryOf(primary: Reach, names: readonly string[] = ['alpha']): Promise<TestSecondary> {
    const secondary = new TestSecondary(primary, { names });
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    return secondary;
  }

  function checkpointsOf(child: Child, domain: string): number {
    return child.reports.filter((report) => report.kind === 'checkpoint' && report.report.domain === domain)
      .length;
  }

  /** The lines from `from` on, as many as the text has. */
  function expectLines(text: string, from: number): void {
    expect(text.length % LINE_BYTES, 'a torn line').to.equal(0);
    let expected = '';
    for (let n = from; n < from + text.length / LINE_BYTES; n++) expected += lineOf(n);
    expect(text === expected, 'lines lost, doubled or out of order').to.equal(true);
  }

  async function untilHeld(child: Child, bytes: number): Promise<void> {
    // Not only because nothing is acknowledged yet.
    await until('replicated', () => child.count('checkpoint') + child.count('commit') > 20);
    await until('the console is as far behind as it may be', () => {
      child.ask();
      return (child.status?.heldOutputBytes ?? 0) > bytes;
    });
  }

  /** Octets, now. */
  async function heldBy(child: Child): Promise<number> {
    const before = child.count('status');
    child.ask();
    await until('its status', () => child.count('status') > before);
    return child.status?.heldOutputBytes ?? NaN;
  }

  for (const [what, console] of [
    [
      'a FIFO that nobody has opened',
      async () => {
        const path = `${await cleanup.directory()}/fifo`;
        Fifo.make(path);
        return path;
      },
    ],
    ['a FIFO that is full', async () => (await Fifo.open(cleanup)).fill().path],
    ['a file that hangs', () => hungFile(cleanup)],
  ] as const) {
    it(`${what}: its domain stops at the limit, the others are replicated and heard`, async function () {
      if (what === 'a file that hangs' && !MAY_MOUNT) this.skip();
      const file = await console();
      const beta = `${await cleanup.directory()}/beta`;
      const names = ['alpha', 'beta'];
      const outputs = { alpha: { console: { file }, limit: '16KiB' }, beta: { console: { file: beta } } };
      const child = await childOf({ names, outputs });
      await secondaryOf(child, names);
      await untilHeld(child, LIMIT);
      const before = names.map((name) => checkpointsOf(child, name));
      const heard = fileText(beta).length;
      await until('checkpoints', () =>
        names.every((name, index) => checkpointsOf(child, name) > (before[index] ?? 0) + 20),
      );
      await until('beta is heard', () => fileText(beta).length > heard + 1000);
      expect(await heldBy(child)).to.be.within(LIMIT, LIMIT + SLACK);
      // Of a domain that stands still one checkpoint lets out what there is: no need for more than the interval's.
      expect(checkpointsOf(child, 'alpha')).to.be.lessThan(5 * checkpointsOf(child, 'beta'));
    });
  }

  it('a FIFO gets a reader, loses it, gets one again: nothing is lost', async () => {
    const path = `${await cleanup.directory()}/fifo`;
    Fifo.make(path);
    const child = await childOf({ output: { console: { file: path }, limit: '16KiB' } });
    await secondaryOf(child);
    await untilHeld(child, LIMIT);
    let text = '';
    let stopped: number[] = [];
    cleanup.add(() => {
      for (const pid of stopped) process.kill(pid, 'SIGKILL');
    });
    for (let round = 1; round <= 3; round++) {
      const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const buffer = Buffer.alloc(65_536);
      await until('output', () => {
        text += readSome(fd, buffer);
        return text.length > round * 50_000;
      });
      // What is in the pipe when its reader goes is lost with it: the last round's reader reads on.
      if (round === 3) {
        await child.kill();
        text += readSome(fd, buffer);
      } else {
        const { pid = 0 } = child.process;
        // Whoever writes to it for the child, too.
        stopped = [pid, ...childrenOf(pid)];
        await stopProcesses(stopped);
        await until('the pipe is empty', () => {
          const more = readSome(fd, buffer);
          text += more;
          return more === '';
        });
      }
      closeSync(fd);
      for (const pid of stopped) process.kill(pid, 'SIGCONT');
      stopped = [];
    }
    expectLines(text.slice(0, text.length - (text.length % LINE_BYTES)), 1);
  });

  it('a pipe that is full: held within the limit; nothing comes out of the old primary after a takeover', async () => {
    const fifo = (await Fifo.open(cleanup)).fill();
    const child = await childOf({ output: { console: 'stdout', limit: '16KiB' } }, fifo.blocking(cleanup));
    const secondary = await secondaryOf(child);
    await untilHeld(child, LIMIT);
    expect(await heldBy(child)).to.be.at.most(LIMIT + SLACK);
    child.process.kill('SIGSTOP');
    await until('failover', () => secondary.failovers.length === 2);
    // The reader goes on, and so does the old primary.
    expect(fifo.drain()).to.equal('');
    child.process.kill('SIGCONT');
    await until('fenced', () => child.was('fenced'));
    const { length } = fifo.drain();
    expect(length, 'octets after the takeover').to.be.at.most(PIECE_BYTES);
  });

  it('a pipe that is full, and the standby is gone: what was let out is kept back until it is known that it took nothing over', async () => {
    const fifo = (await Fifo.open(cleanup)).fill();
    const child = await childOf({ output: { console: 'stdout', limit: '16KiB' } }, fifo.blocking(cleanup));
    const { port, registers } = child;
    const standby = Child.secondary({ port, registers });
    cleanup.add(() => standby.kill());
    await untilHeld(child, LIMIT);
    // Nobody can ask.
    renameSync(registers, `${registers}.away`);
    await standby.kill();
    await until('unprotected', () => child.status?.link === 'down');
    fifo.drain();
    const checkpoints = child.count('checkpoint');
    const asked = child.count('status');
    await until('it has had its time', () => {
      child.ask();
      return child.count('status') > asked + 100;
    });
    expect(fifo.drain()).to.equal('');
    renameSync(`${registers}.away`, registers);
    await secondaryOf(child);
    let text = '';
    await until('it goes on', () => {
      text += fifo.drain();
      return child.count('checkpoint') > checkpoints + 20 && text.length > 3 * LIMIT;
    });
    expectLines(text.slice(0, text.length - (text.length % LINE_BYTES)), 1);
  });

  it('a full disk: kept within the limit, and when there is room again every line is there, once and whole', async function () {
    if (!MAY_MOUNT) this.skip();
    const disk = await smallDisk(cleanup, '8m');
    const ballast = `${disk}/ballast`;
    const file = `${disk}/console`;
    const child = await childOf({ output: { console: { file }, limit: '16KiB' } });
    await secondaryOf(child);
    await until('output', () => fileText(file).length > 10_000);
    // What fits, to the last octet.
    try {
      writeFileSync(ballast, Buffer.alloc(16 * 2 ** 20));
    } catch (error) {
      expect(codeOf(error)).to.equal('ENOSPC');
    }
    await untilHeld(child, LIMIT);
    const { length } = fileText(file);
    expect(await heldBy(child)).to.be.at.most(LIMIT + SLACK);
    const checkpoints = child.count('checkpoint');
    await until('checkpoints', () => child.count('checkpoint') > checkpoints + 5);
    rmSync(ballast);
    await until('it goes on', () => fileText(file).length > length + 3 * LIMIT);
    await child.kill();
    const text = readFileSync(file, 'latin1');
    expectLines(text.slice(0, text.length - (text.length % LINE_BYTES)), 1);
  });

  it('the secondary, when it has taken over: bounded, and nothing is lost', async () => {
    const fifo = (await Fifo.open(cleanup)).fill();
    const registers = await cleanup.directory();
    const primary = new TestPrimary({ registers });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const changes = { output: { console: 'stdout', limit: '16KiB' } };
    const child = Child.secondary({ port: primary.port, registers }, changes, fifo.blocking(cleanup));
    cleanup.add(() => child.kill());
    await until('checkpoints', () => child.count('commit') > 25);
    primary.guest().domain.crash();
    await until('failover', () => child.count('failover') === 2);
    await untilHeld(child, LIMIT);
    const asked = child.count('status');
    await until('it has had its time', () => {
      child.ask();
      return child.count('status') > asked + 200;
    });
    expect(child.status?.heldOutputBytes).to.be.at.most(LIMIT + SLACK);
    let text = '';
    await until('it goes on', () => {
      text += fifo.drain();
      return text.length > 5 * LIMIT;
    });
    expectLines(text.slice(0, text.length - (text.length % LINE_BYTES)), Number(text.slice(0, LINE_BYTES)));
  });

  it('whoever reads standard output leaves: the domain goes on', async () => {
    const path = `${await cleanup.directory()}/fifo`;
    Fifo.make(path);
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writer = openSync(path, constants.O_WRONLY);
    const child = await childOf({ output: { console: 'stdout', limit: '16KiB' } }, writer);
    closeSync(writer);
    await secondaryOf(child);
    const buffer = Buffer.alloc(65_536);
    await until('output', () => readSome(reader, buffer) !== '');
    closeSync(reader);
    const checkpoints = child.count('checkpoint');
    const outputs = () =>
      child.reports.flatMap((report) => (report.kind === 'checkpoint' ? [report.report.outputBytes] : []));
    const said = outputs().at(-1) ?? 0;
    await until('it goes on', () => (outputs().at(-1) ?? 0) > said + 3 * LIMIT);
    expect(child.count('checkpoint')).to.be.greaterThan(checkpoints);
  });

  it('a tap that stalls loses octets, and nobody waits for it', async () => {
    const tap = (await Fifo.open(cleanup)).fill();
    const file = `${await cleanup.directory()}/console`;
    const child = await childOf({ output: { console: { file }, tap: tap.path, limit: '16KiB' } });
    await secondaryOf(child);
    await until('output', () => fileText(file).length > 100_000);
    child.process.kill('SIGSTOP');
    const text = fileText(file);
    expectLines(text.slice(0, text.length - (text.length % LINE_BYTES)), 1);
  });
});

function readSome(fd: number, buffer: Buffer): string {
  try {
    return buffer.toString('latin1', 0, readSync(fd, buffer));
  } catch (error) {
    if (codeOf(error) === 'EAGAIN') return '';
    throw error;
  }
}
