// Two agents in one process, over real sockets, with memory domains.

import { expect } from 'chai';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { WitnessLine } from './hosts.js';
import { LINE_BYTES, lineOf, memoryAfter, progressOf } from './memory-guest.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import {
  fileText,
  PAGES,
  TestPrimary,
  TestSecondary,
  type PrimaryChanges,
  type SecondaryChanges,
} from './world.js';

function expectPrefix(output: string, from = 1): number {
  const lines = output.length / LINE_BYTES;
  expect(Number.isInteger(lines)).to.equal(true);
  let expected = '';
  for (let n = from; n < from + lines; n++) expected += lineOf(n);
  expect(output === expected, 'the output is what the guest said, in order').to.equal(true);
  return lines;
}

describe('service: two hosts', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(changes: PrimaryChanges = {}): Promise<TestPrimary> {
    const primary = new TestPrimary(changes);
    cleanup.add(() => primary.service.stop());
    await primary.start();
    return primary;
  }

  async function secondaryOf(primary: TestPrimary, changes: SecondaryChanges = {}): Promise<TestSecondary> {
    const secondary = new TestSecondary(primary, changes);
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    return secondary;
  }

  it('replicates: every commit is a consistent copy, output is let out up to it and no further', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary);
    const progress: number[] = [];
    secondary.service.commits$.subscribe((commit) => {
      const { memory } = secondary.domains[0] ?? primary.guest().domain;
      const n = progressOf(memory);
      expect(n * LINE_BYTES).to.equal(commit.outputBytes);
      expect(primary.output().length).to.be.at.most(commit.outputBytes);
      progress.push(n);
    });
    await until('20 checkpoints', () => primary.checkpoints.length >= 20);
    const { memory } = secondary.domains[0] ?? primary.guest().domain;
    const n = progressOf(memory);
    expect(Buffer.compare(memory, memoryAfter(n, PAGES))).to.equal(0);
    expect(expectPrefix(primary.output())).to.be.greaterThan(100);
    expect(primary.checkpoints.map(({ epoch }) => epoch)).to.deep.equal([...primary.checkpoints.keys()]);
    const { phases, pause } = primary.checkpoints[5] ?? { phases: null, pause: 0 };
    expect(Object.values(phases ?? {}).every((seconds) => seconds >= 0)).to.equal(true);
    expect(pause).to.be.greaterThan(0);
    expect(primary.status()).to.include({ role: 'primary', link: 'replicating' });
    expect(secondary.status()).to.include({ role: 'standby', link: 'replicating' });
    expect(secondary.status().streamUuid).to.equal(primary.status().streamUuid);
  });

  it('nothing is let out while another host might run the domain', async () => {
    const line = new WitnessLine(createMemoryWitness());
    const primary = await primaryOf({ registers: line });
    const secondary = await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 5);
    line.isCut = true;
    await secondary.service.stop();
    await until('unprotected', () => primary.status().link === 'down');
    const output = primary.output();
    const { progress } = primary.guest();
    await until('the guest has said something', () => primary.guest().progress > progress + 100);
    expect(primary.output()).to.equal(output);
    expect(primary.status().heldOutputBytes).to.be.greaterThan(800);
  });

  it('all is let out at once while nobody else may run it, until a standby is there', async () => {
    const primary = await primaryOf();
    await until('the guest has said something', () => primary.guest().progress > 100);
    expect(expectPrefix(primary.output())).to.equal(primary.guest().progress);
    const secondary = await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 5);
    expect(primary.output().length).to.be.at.most(secondary.commits.at(-1)?.outputBytes ?? 0);
    await secondary.service.stop();
    await until('unprotected', () => primary.status().link === 'down');
    await until('all is out', () => primary.status().heldOutputBytes === 0);
    expectPrefix(primary.output());
  });

  it('with-standby: the domain waits for one', async () => {
    const primary = await primaryOf({ start: 'with-standby' });
    expect(primary.guest().domain.state).to.equal('created');
    await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 2);
    expect(primary.guest().progress).to.be.greaterThan(0);
  });

  it('a secondary that stops and comes again: a new stream, the same domain', async () => {
    const primary = await primaryOf();
    for (let round = 0; round < 3; round++) {
      const before = primary.checkpoints.length;
      const secondary = await secondaryOf(primary);
      await until('checkpoints', () => primary.checkpoints.length > before + 3);
      await secondary.service.stop();
      await until('unprotected', () => primary.status().link === 'down');
      expect(secondary.failovers).to.deep.equal([]);
    }
    expect(new Set(primary.checkpoints.map(({ streamUuid }) => streamUuid)).size).to.equal(3);
    expectPrefix(primary.output());
  });

  it('the primary stops in order: the secondary does not take over, and serves its next instance', async () => {
    const first = await primaryOf();
    const secondary = await secondaryOf(first);
    await until('checkpoints', () => first.checkpoints.length > 3);
    const { port, registers } = first;
    await first.service.stop();
    await until('bye', () => secondary.status().link !== 'replicating');
    const second = await primaryOf({ port, registers });
    await until('checkpoints', () => second.checkpoints.length > 3);
    expect(secondary.failovers).to.deep.equal([]);
    expect(progressOf(secondary.domains.at(-1)?.memory ?? new Uint8Array(4))).to.be.at.most(
      second.guest().progress,
    );
  });

  it('the domain shuts down: its last words are let out, both sides are ended, nobody takes over', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 3);
    primary.guest().turn();
    primary.guest().domain.shutdown();
    await until('both ends', () => primary.was('ended') && secondary.was('ended'));
    await until('all is out', () => primary.output().length === primary.guest().progress * LINE_BYTES);
    expectPrefix(primary.output());
    expect(secondary.failovers).to.deep.equal([]);
  });

  it('the domain crashes: the secondary takes it over from the last checkpoint', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 3);
    primary.guest().domain.crash();
    await until('failover', () => secondary.owns());
    expect(primary.was('failed')).to.equal(true);
    expect(secondary.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'completed']);
    const { memory } = secondary.running();
    expect(Buffer.compare(memory, memoryAfter(progressOf(memory), PAGES))).to.equal(0);
  });

  it('the domain crashes while it is made: it is let go of', async () => {
    const primary = new TestPrimary({ domain: { onCrash: 'stay' }, made: (domain) => domain.crash() });
    cleanup.add(() => primary.service.stop());
    await primary.service.start();
    await until('its end', () => primary.was('failed'));
    await until('nothing is left of it', () => primary.guest().domain.state === 'destroyed');
  });

  it('what the hypervisor holds back is sealed while the domain runs, before each suspend', async () => {
    const calls: string[] = [];
    const primary = await primaryOf({
      made: (domain) => {
        const said = (call: string) => () => {
          calls.push(`${call} ${domain.state}`);
          return Promise.resolve();
        };
        const gate = {
          ...{ heldBytes: 0, emittedBytes: 0, releasedBytes: 0 },
          ...{ seal: said('seal'), release: said('release'), discard: said('discard') },
          ...{ pass: said('pass'), hold: said('hold'), restart: said('restart') },
        };
        Object.assign(domain, { prepareSuspend: said('prepare'), gates: [gate] });
        domain.script = (call) => {
          if (call === 'suspend' || call === 'resume') calls.push(call);
        };
      },
    });
    await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 3);
    const second = calls.filter((call) => /prepare|seal|suspend|resume/.test(call)).slice(4, 8);
    expect(second).to.deep.equal(['prepare running', 'seal running', 'suspend', 'resume']);
  });

  it('the domain ends while its suspension is prepared: shut down or crashed, as it says when it does', async () => {
    for (const ending of ['crash', 'shutdown'] as const) {
      let ends = false;
      const primary = await primaryOf({
        made: (domain) => {
          const prepareSuspend = () => {
            if (!ends) return Promise.resolve();
            setTimeout(() => domain[ending](), 20);
            return Promise.reject(new HypervisorError('DOMAIN_GONE', 'The connection is lost.'));
          };
          Object.assign(domain, { prepareSuspend });
        },
      });
      const secondary = await secondaryOf(primary);
      await until('checkpoints', () => primary.checkpoints.length > 3);
      ends = true;
      await until('the end', () => secondary.was(ending === 'crash' ? 'active' : 'ended'));
      await until('the end', () => primary.was(ending === 'crash' ? 'failed' : 'ended'));
    }
  });

  it('a domain with a device model is taken over with the state that belongs to its memory, or ends with it', async () => {
    for (const ending of ['crash', 'shutdown'] as const) {
      const primary = await primaryOf({ emulator: true });
      const { domain } = primary.guest();
      domain.script = (call) => {
        if (call === 'emulatorContext') domain.emulatorState = domain.memory.slice(0, 4);
      };
      const secondary = await secondaryOf(primary, { emulator: true });
      await until('checkpoints', () => primary.checkpoints.length > 3);
      if (ending === 'shutdown') {
        domain.shutdown();
        await until('both ends', () => primary.was('ended') && secondary.was('ended'));
        expect(secondary.failovers).to.deep.equal([]);
        continue;
      }
      domain.crash();
      await until('failover', () => secondary.owns());
      const { memory, emulatorState } = secondary.running();
      const progress = progressOf(memory);
      expect(progress).to.be.greaterThan(0);
      expect(progressOf(emulatorState)).to.equal(progress);
      expect(Buffer.compare(memory, memoryAfter(progress, PAGES))).to.equal(0);
    }
  });

  it('more output than may be held: the domain stands still until it is safe', async () => {
    const line = new WitnessLine(createMemoryWitness());
    const primary = await primaryOf({ output: { limit: '4KiB' }, registers: line });
    const secondary = await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 3);
    line.isCut = true;
    await secondary.service.stop();
    const { domain } = primary.guest();
    await until(
      'the domain stands still',
      () => primary.status().link === 'down' && domain.state === 'suspended',
    );
    const { heldOutputBytes: held } = primary.status();
    expect(held).to.be.within(4096, 4096 + 20 * LINE_BYTES);
    const { length } = primary.output();
    line.isCut = false;
    await until('output', () => primary.output().length > length + 3 * held);
    expectPrefix(primary.output());
  });

  it('a request is a checkpoint ahead of the interval', async () => {
    const primary = await primaryOf({ checkpoint: { intervalMs: 60_000 } });
    await secondaryOf(primary);
    await until('the first checkpoint', () => primary.checkpoints.length === 1);
    primary.service.requestCheckpoint('alpha');
    await until('the second checkpoint', () => primary.checkpoints.length === 2);
    expect(() => primary.service.requestCheckpoint('nobody')).to.throw('there is no domain nobody here');
  });

  it('a window of four epochs', async () => {
    const primary = await primaryOf({ checkpoint: { intervalMs: 1, windowEpochs: 4 } });
    const secondary = await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 50);
    const { memory } = secondary.domains[0] ?? primary.guest().domain;
    expect(Buffer.compare(memory, memoryAfter(progressOf(memory), PAGES))).to.equal(0);
    expectPrefix(primary.output());
  });

  it('several domains, one of which cannot be made: the others do not notice', async () => {
    const names = ['alpha', 'broken', 'gamma'];
    const primary = await primaryOf({ names });
    const secondary = await secondaryOf(primary, { names });
    await until('both replicate', () =>
      ['alpha', 'gamma'].every(
        (name) => primary.checkpoints.filter(({ domain }) => domain === name).length > 5,
      ),
    );
    const broken = primary.history.find(({ domain, role }) => domain === 'broken' && role === 'failed');
    expect(broken).to.deep.include({ link: 'down' });
    expect(broken?.error?.message).to.equal('no such machine');
    primary.guest('alpha').domain.shutdown();
    await until('alpha ended', () => secondary.was('ended'));
    const before = primary.checkpoints.length;
    await until('gamma goes on', () => primary.checkpoints.length > before + 5);
    expectPrefix(primary.output('gamma'));
  });

  it('console and tap as configured', async () => {
    const directory = await cleanup.directory();
    const files = { console: { file: `${directory}/console` }, tap: `${directory}/tap` };
    const primary = await primaryOf({ output: files });
    await secondaryOf(primary);
    await until('checkpoints', () => primary.checkpoints.length > 5);
    const released = primary.checkpoints.at(-1)?.outputBytes ?? Infinity;
    // Each file is written at its own pace, while it is read here.
    for (const file of [files.console.file, files.tap]) {
      let text = '';
      await until(`all of it in ${file}, in whole lines`, () => {
        text = fileText(file);
        return text.length >= released && text.length % LINE_BYTES === 0;
      });
      expectPrefix(text);
    }
  });

  it('stops at any moment, twice, and leaves nothing', async () => {
    for (const waitMs of [0, 1, 5, 20, 60]) {
      const primary = await primaryOf();
      const secondary = await secondaryOf(primary);
      const started = performance.now();
      await until('a moment', () => performance.now() - started >= waitMs);
      await Promise.all([primary.service.stop(), secondary.service.stop()]);
      await Promise.all([primary.service.stop(), secondary.service.stop()]);
      expect(primary.guest().domain.state).to.equal('destroyed');
      expect(secondary.domains.every(({ state }) => state === 'destroyed')).to.equal(true);
      expect(secondary.failovers).to.deep.equal([]);
      expectPrefix(primary.output());
    }
  });
});
