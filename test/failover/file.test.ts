// The witness that is a directory.

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { link, mkdir, readdir, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { codeOf } from '../../src/errors.js';
import type { Register } from '../../src/failover/register.js';
import { settle } from '../../src/failover/settle.js';
import { createFileWitness } from '../../src/failover/witnesses/file/file.js';
import { linkNext } from '../../src/failover/witnesses/file/generations.js';
import { encodeRegister } from '../../src/failover/witnesses/value.js';
import { Cleanup } from '../support/cleanup.js';
import { childrenOf, isAlive } from '../support/processes.js';
import { newSeed, seeded } from '../support/random.js';
import { hungFile, MAY_MOUNT, smallDisk } from '../support/strangers.js';
import { until } from '../support/until.js';
import { conforms } from './conformance.js';
import { DeafDirectory } from './deaf-directory.js';
import { alone, refused } from './support.js';

const RACER = fileURLToPath(new URL('./file-racer.js', import.meta.url));
const ONE_READ = fileURLToPath(new URL('./file-one-read.js', import.meta.url));

describe('witness file', () => {
  const cleanup = new Cleanup();
  let directory: string;

  beforeEach(async () => {
    directory = await cleanup.directory();
  });
  afterEach(() => cleanup.run());

  function witness(at = directory, requestTimeoutMs = 10_000) {
    const opened = createFileWitness({ directory: at, requestTimeoutMs });
    cleanup.add(() => opened.close());
    return opened;
  }

  async function write(times: number, host = witness()): Promise<Register> {
    let held = await host.read('web');
    for (let count = 0; count < times; count++) {
      const settled = await settle(host, 'web', { expected: held, claim: alone('one'), token: `t${count}` });
      held = settled.register;
    }
    if (held === null) throw new Error('nothing was written');
    return held;
  }

  conforms({ open: () => Promise.resolve([witness(), witness()]), cleanup, runs: 10 });

  it('generations that are long past are removed, and files aside that nobody links any more', async () => {
    await write(3);
    const old = new Date(Date.now() - 3600_000);
    await writeFile(`${directory}/.web.dead.1.tmp`, '{"ver');
    await utimes(`${directory}/.web.dead.1.tmp`, old, old);
    await writeFile(`${directory}/.web.living.2.tmp`, '{"ver');
    await writeFile(`${directory}/.other.dead.3.tmp`, '');
    await utimes(`${directory}/.other.dead.3.tmp`, old, old);
    const host = witness();
    const held = await write(20, host);
    expect(held.generation).to.equal(23);
    await host.read('web'); // when the last write has been tidied up behind
    const names = (await readdir(directory)).sort();
    const expected = Array.from({ length: 8 }, (_, index) => `web.${String(16 + index).padStart(16, '0')}`);
    expect(names).to.deep.equal(['.other.dead.3.tmp', '.web.living.2.tmp', ...expected]);
  });

  it('a generation that is no register is told, and never taken for an absent one', async () => {
    const host = witness();
    const held = await write(2, host);
    const next = `${directory}/web.${'3'.padStart(16, '0')}`;
    for (const content of ['', '{"version":1', 'x'.repeat(5000)]) {
      await writeFile(next, content);
      await refused(host.read('web'), 'CORRUPT');
      await refused(host.compareAndSet('web', held, alone('one'), 't'), 'CORRUPT');
    }
    await rename(`${directory}/web.${'2'.padStart(16, '0')}`, next);
    await refused(host.read('web'), 'CORRUPT');
  });

  it('a directory that is not there, or is a mount point, is none', async () => {
    await refused(witness(`${directory}/none`).read('web'), 'UNREACHABLE');
    await refused(witness(`${directory}/none`).compareAndSet('web', null, alone('one'), 't'), 'UNREACHABLE');
    if (!MAY_MOUNT) return;
    const disk = await smallDisk(cleanup, '1M');
    await refused(witness(disk).read('web'), 'BAD_OPTIONS');
    await mkdir(`${disk}/registers`);
    expect(await witness(`${disk}/registers`).read('web')).to.equal(null);
  });

  it('what somebody else wrote is read through a link to the directory as well', async () => {
    const held = await write(1);
    await symlink(directory, `${directory}-link`);
    cleanup.add(() => rm(`${directory}-link`));
    expect(await witness(`${directory}-link`).read('web')).to.deep.equal(held);
  });

  it('a writer that was late links what is long past, and has not won', async () => {
    const seen = await write(1);
    await write(20);
    const next: Register = { ...seen, generation: 2, token: 'late' };
    const aside = `${directory}/.web.late.1.tmp`;
    await writeFile(aside, encodeRegister(next));
    expect(await linkNext(directory, 'web', aside, next)).to.equal('lost');
    expect((await witness().read('web'))?.generation).to.equal(21);
  });

  it('a link that is there although nobody said so is won by whoever made it', async () => {
    const seen = await write(1);
    const next: Register = { ...seen, generation: 2, token: 'mine' };
    const aside = `${directory}/.web.mine.1.tmp`;
    await writeFile(aside, encodeRegister(next));
    await link(aside, `${directory}/web.${'2'.padStart(16, '0')}`);
    expect(await linkNext(directory, 'web', aside, next)).to.equal('won');
    const other = { ...next, token: 'other' };
    await writeFile(`${directory}/.web.other.1.tmp`, encodeRegister(other));
    expect(await linkNext(directory, 'web', `${directory}/.web.other.1.tmp`, other)).to.equal('lost');
  });

  it('two processes that race, and are stopped in the midst, never win the same generation', async function () {
    this.timeout(300_000);
    const generations = 1000;
    const racers = ['one', 'two'].map((name) => {
      const child = spawn(process.execPath, [RACER, directory, name, String(generations)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      cleanup.add(() => child.kill('SIGKILL'));
      let said = '';
      child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
      const own = new Promise<number[]>((resolve) => {
        child.once('close', () => resolve(JSON.parse(said) as number[]));
      });
      return { child, own };
    });
    const running = Promise.all(racers.map(({ own }) => own));
    let over = false;
    void running.finally(() => (over = true));
    const seed = newSeed();
    const random = seeded(seed);
    // Those that do the work stand still in the midst of it, for about as long as generations are kept.
    const pids = racers.map(({ child }) => child.pid ?? NaN);
    for (let stops = 0; !over; stops++) {
      const pid = pids[stops % pids.length] ?? NaN;
      const workers = signalWorkers(pid, 'SIGSTOP');
      const untilMs = performance.now() + 80 * random();
      await until('the pause', () => over || performance.now() > untilMs);
      if (workers) signalWorkers(pid, 'SIGCONT');
    }
    const [one = [], two = []] = await running;
    const all = [...one, ...two];
    expect(new Set(all).size, `seed ${seed}`).to.equal(all.length);
    // One that is followed at once, or while its writer stands still, may be told as lost.
    expect(all.length).to.be.above(generations / 2);
    expect(Math.min(one.length, two.length), 'both write').to.be.above(10);
  });
});

describe('the process that works for the witness file', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('is gone with the agent that is killed', async () => {
    const directory = await cleanup.directory();
    const racer = spawn(process.execPath, [RACER, directory, 'one', '1000000'], { stdio: 'ignore' });
    cleanup.add(() => racer.kill('SIGKILL'));
    const pid = racer.pid ?? NaN;
    await until('it works', () => childrenOf(pid).length > 0);
    const workers = childrenOf(pid);
    racer.kill('SIGKILL');
    await until('they are gone', () => !workers.some(isAlive));
  });

  it('is started anew when it has been killed', async () => {
    const directory = await cleanup.directory();
    const host = createFileWitness({ directory, requestTimeoutMs: 10_000 });
    cleanup.add(() => host.close());
    const before = childrenOf(process.pid);
    expect(await host.read('web')).to.equal(null);
    const [worker = NaN] = childrenOf(process.pid).filter((pid) => !before.includes(pid));
    process.kill(worker, 'SIGSTOP');
    const waiting = refused(host.read('web'), 'UNREACHABLE');
    process.kill(worker, 'SIGKILL');
    await waiting;
    expect(await host.compareAndSet('web', null, alone('one'), 't')).to.equal('won');
    await host.close();
    await until('none is left', () => childrenOf(process.pid).every((pid) => before.includes(pid)));
  });
});

/** Whether one of its threads stands where the kernel waits for the server of such a file system. */
function waitsForFuse(pid: number): boolean {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.some((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/wchan`, 'latin1').startsWith('fuse_'),
  );
}

/** Whether there are any: a racer that is done has none. */
function signalWorkers(racer: number, signal: NodeJS.Signals): boolean {
  try {
    const workers = childrenOf(racer);
    for (const worker of workers) process.kill(worker, signal);
    return workers.length > 0;
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(codeOf(error))) return false;
    throw error;
  }
}

describe('witness file in a directory whose server is gone', () => {
  const cleanup = new Cleanup();
  before(function () {
    if (MAY_MOUNT) return;
    console.log('\n    SKIPPED: only root may mount a file system that hangs\n');
    this.skip();
  });
  afterEach(() => cleanup.run());

  it('fails in time; while one call hangs the next fails at once; then all is well again', async () => {
    const deaf = await DeafDirectory.open(cleanup);
    const good = await cleanup.directory();
    const place = `${await cleanup.directory()}/registers`;
    await symlink(deaf.directory, place);
    const limitMs = 500;
    const host = createFileWitness({ directory: place, requestTimeoutMs: limitMs });
    cleanup.add(() => host.close());
    const begunMs = performance.now();
    const waiting = [host.read('web'), host.read('db'), host.compareAndSet('web', null, alone('one'), 't')];
    await Promise.all(waiting.map((each) => refused(each, 'TIMEOUT')));
    expect(performance.now() - begunMs).to.be.within(limitMs - 10, 10 * limitMs);
    expect(deaf.asked, 'a request arrived, so it cannot be killed').to.be.above(0);
    for (let count = 0; count < 50; count++) {
      const error = await refused(host.read('web'), 'TIMEOUT');
      expect(error.message).to.match(/still hangs/);
    }
    // This process is not what hangs.
    expect(await readdir(good)).to.deep.equal([]);
    await deaf.end();
    await rm(place);
    await symlink(good, place);
    const settled = await settle(host, 'web', { expected: null, claim: alone('one'), token: 't' });
    expect(settled.won).to.equal(true);
  });

  it('the process that waits there is gone with the agent that is killed', async () => {
    const directory = path.dirname(await hungFile(cleanup));
    const agent = spawn(process.execPath, [ONE_READ, directory, '60000'], { stdio: 'ignore' });
    cleanup.add(() => agent.kill('SIGKILL'));
    const pid = agent.pid ?? NaN;
    await until('it waits', () => childrenOf(pid).some(waitsForFuse));
    const workers = childrenOf(pid);
    agent.kill('SIGKILL');
    await until('it is gone', () => !workers.some(isAlive));
  });

  it('an agent that asks there can still end', async () => {
    const deaf = await DeafDirectory.open(cleanup);
    const child = spawn(process.execPath, [ONE_READ, deaf.directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    cleanup.add(() => child.kill('SIGKILL'));
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await until('it has ended', () => child.exitCode !== null, 20_000);
    expect(said).to.equal('TIMEOUT');
  });
});
