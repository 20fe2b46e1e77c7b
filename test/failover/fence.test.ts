// The witness that turns the other host off: real commands.

import { chmod, readFile, rename, writeFile } from 'node:fs/promises';
import { existsSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { Claim, Register } from '../../src/failover/register.js';
import { settle } from '../../src/failover/settle.js';
import { createFenceWitness, type FenceWitnessOptions } from '../../src/failover/witnesses/fence/fence.js';
import { Cleanup } from '../support/cleanup.js';
import { isAlive } from '../support/processes.js';
import { until } from '../support/until.js';
import { conforms } from './conformance.js';
import { alone, paired, refused } from './support.js';

describe('witness fence', () => {
  const cleanup = new Cleanup();
  let directory: string;
  let place: string;
  let log: string;

  beforeEach(async () => {
    place = await cleanup.directory();
    directory = await cleanup.directory();
    log = `${place}/log`;
  });
  afterEach(() => cleanup.run());

  /** A command that says whom it is for, and then does this. */
  async function command(does: string): Promise<string> {
    const file = `${place}/fence`;
    await writeFile(
      file,
      `#!/bin/sh\ncd ${place}\necho "$ROMULUS_DOMAIN $ROMULUS_HOST $*" >> log\n${does}\n`,
    );
    await chmod(file, 0o755);
    return file;
  }

  const fenced = (): string[] => (existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : []);

  async function witness(does: string, options: Partial<FenceWitnessOptions> = {}) {
    const opened = createFenceWitness({
      ...{ command: [await command(does)], host: 'one', peers: ['two', 'three'], directory },
      ...{ attempts: 1, retryDelayMs: 1, timeoutMs: 10_000, requestTimeoutMs: 10_000 },
      ...options,
    });
    cleanup.add(() => opened.close());
    return opened;
  }

  /** What it wrote is what is there. */
  async function write(
    host: Awaited<ReturnType<typeof witness>>,
    claim: Claim,
    token = 't',
  ): Promise<Register | null> {
    const expected = await host.read('web');
    expect(await host.compareAndSet('web', expected, claim, token)).to.equal('won');
    return host.read('web');
  }

  conforms({
    open: () =>
      Promise.all([witness('exit 1', { hasLetGo: () => true }), witness('exit 1', { hasLetGo: () => true })]),
    cleanup,
    runs: 5,
  });

  it('turns off whom a write leaves behind, and nobody else', async () => {
    const host = await witness('exit 0', { command: [await command('exit 0'), 'a b', '$HOME'] });
    const steps: [Claim, string[]][] = [
      [alone('one'), ['three', 'two']], // a boot: nobody knows what the others do
      [paired('one', 'two'), []],
      [alone('one'), ['two']],
      [alone('one'), ['three', 'two']], // a boot again
      [paired('one', 'three'), []],
      [paired('three', 'one'), []], // that is what the others agreed on
      [alone('one'), ['three']], // a takeover
      [paired('one', 'two'), []],
      [paired('one', 'three'), ['two']],
      [alone('two'), []],
      [paired('one', 'two'), []],
      [paired('two', 'three'), []],
      [alone('one'), ['three', 'two']], // by force
    ];
    for (const [index, [claim, hosts]] of steps.entries()) {
      const before = fenced().length;
      await write(host, claim, `t${index}`);
      const expected = hosts.map((each) => `web ${each} a b $HOME`);
      expect(fenced().slice(before).sort(), JSON.stringify(claim)).to.deep.equal(expected);
    }
  });

  it('who has let go by its own word is not turned off', async () => {
    const host = await witness('exit 0', { hasLetGo: (domain, peer) => domain === 'web' && peer === 'two' });
    await write(host, alone('one'));
    expect(fenced()).to.deep.equal(['web three']);
  });

  it('a write that is lost turns nobody off', async () => {
    const host = await witness('exit 0', { peers: ['two'] });
    const expected: Register = { ...alone('one'), generation: 4, token: 't' };
    expect(await host.compareAndSet('web', expected, alone('one'), 't')).to.equal('lost');
    expect(fenced()).to.deep.equal([]);
  });

  it('what a command says is told: its code, and the end of what it complained of', async () => {
    const host = await witness(
      'i=0; while [ $i -lt 500 ]; do echo "complaint $i" >&2; i=$((i+1)); done; exit 7',
      {
        ...{ peers: ['two'], attempts: 3 },
      },
    );
    const error = await refused(host.compareAndSet('web', null, alone('one'), 't'), 'FENCE_FAILED');
    expect(error.facts).to.include({ host: 'two', exitCode: 7, signal: null });
    expect(String(error.facts['standardError']))
      .to.match(/complaint 499$/)
      .and.have.length.below(2049);
    expect(error.suppressed).to.have.length(2);
    expect(fenced()).to.have.length(3);
    expect(await host.read('web')).to.equal(null);
  });

  it('is tried again until it succeeds', async () => {
    const host = await witness('[ "$(wc -l < log)" -ge 5 ]', { peers: ['two'], attempts: 2 });
    const backoff = { firstMs: 1, maxMs: 1 };
    const settled = await settle(
      host,
      'web',
      { expected: null, claim: alone('one'), token: 't' },
      { backoff },
    );
    expect(settled.won).to.equal(true);
    expect(fenced()).to.have.length(5);
  });

  it('a command that is not there, or dies, is no success', async () => {
    const missing = await witness('', { command: [`${place}/none`], peers: ['two'] });
    const error = await refused(missing.compareAndSet('web', null, alone('one'), 't'), 'FENCE_FAILED');
    expect(error.facts).to.include({ error: 'ENOENT' });
    const dying = await witness('kill -9 $$', { peers: ['two'] });
    const death = await refused(dying.compareAndSet('web', null, alone('one'), 't'), 'FENCE_FAILED');
    expect(death.facts).to.include({ signal: 'SIGKILL', exitCode: null });
  });

  const LONG = 'sleep 1000 & echo $! $$ > pids.new; mv pids.new pids; wait';

  async function pids(): Promise<number[]> {
    await until('it has begun', () => existsSync(`${place}/pids`));
    return (await readFile(`${place}/pids`, 'utf8')).trim().split(' ').map(Number);
  }

  it('one that takes too long is killed, with its children', async () => {
    const host = await witness(LONG, { peers: ['two'], timeoutMs: 1000 });
    const error = await refused(host.compareAndSet('web', null, alone('one'), 't'), 'FENCE_FAILED');
    expect(error.facts).to.include({ timeoutMs: 1000 });
    const started = await pids();
    await until('they are gone', () => !started.some(isAlive));
  });

  it('one that nobody waits for any more is killed, as at the end', async () => {
    for (const end of ['signal', 'close'] as const) {
      const host = await witness(`rm -f pids; ${LONG}`, { peers: ['two'] });
      const stop = new AbortController();
      const writing = host.compareAndSet('web', null, alone('one'), 't', stop.signal);
      const rejection = refused(writing, end === 'signal' ? 'ABORTED' : 'CLOSED');
      const started = await pids();
      if (end === 'signal') stop.abort();
      else await host.close();
      await rejection;
      await until('they are gone', () => !started.some(isAlive));
    }
  });

  it('a command that has said yes counts, whatever it left behind', async () => {
    const host = await witness('sleep 1000 & echo $! $$ > pids.new; mv pids.new pids; exit 0', {
      ...{ peers: ['two'], timeoutMs: 5000 },
    });
    expect(await host.compareAndSet('web', null, alone('one'), 't')).to.equal('won');
    const [left = NaN] = await pids();
    process.kill(left, 'SIGKILL');
  });

  it('two domains that need the same host off share one command; who leaves does not end it', async () => {
    const asked: string[] = [];
    const host = await witness('while [ ! -e go ]; do sleep 0.01; done', {
      peers: ['two'],
      hasLetGo: (domain) => {
        asked.push(domain);
        return false;
      },
    });
    const stop = new AbortController();
    const leaving = refused(host.compareAndSet('a', null, alone('one'), 't', stop.signal), 'ABORTED');
    await until('the first has begun', () => fenced().length === 1);
    const others = ['b', 'c'].map((domain) => host.compareAndSet(domain, null, alone('one'), 't'));
    await until('the others wait', () => asked.length === 3);
    stop.abort();
    await leaving;
    await writeFile(`${place}/go`, '');
    expect(await Promise.all(others)).to.deep.equal(['won', 'won']);
    expect(fenced()).to.deep.equal(['a two']);
    expect(await host.read('a')).to.equal(null);
  });

  it('another attempt of the same write does not turn it off again; the next write does', async () => {
    // The disk is gone by the time that the register is to be written.
    const host = await witness(`mv ${directory} ${directory}.away 2>/dev/null; exit 0`, { peers: ['two'] });
    await refused(host.compareAndSet('web', null, alone('one'), 't1'), 'UNREACHABLE');
    await rename(`${directory}.away`, directory);
    expect(await host.compareAndSet('web', null, alone('one'), 't1')).to.equal('won');
    expect(fenced()).to.have.length(1);
    await refused(host.compareAndSet('web', await host.read('web'), alone('one'), 't2'), 'UNREACHABLE');
    await rename(`${directory}.away`, directory);
    expect(fenced()).to.have.length(2);
    // Nor does what was done for a write that nobody settles count for another.
    await refused(host.compareAndSet('web', await host.read('web'), alone('one'), 't3'), 'UNREACHABLE');
    await rename(`${directory}.away`, directory);
    expect(fenced()).to.have.length(3);
  });

  it('the registers outlive the process', async () => {
    const host = await witness('exit 0');
    const held = await write(host, alone('one'));
    await host.close();
    expect(await (await witness('exit 0')).read('web')).to.deep.equal(held);
  });

  it('a witness that cannot fence is refused', () => {
    const options = { host: 'one', peers: ['two'], directory };
    expect(() => createFenceWitness({ ...options, command: [] })).to.throw('no command');
    expect(() => createFenceWitness({ ...options, command: ['x'], peers: ['a/b'] })).to.throw('host');
  });
});
