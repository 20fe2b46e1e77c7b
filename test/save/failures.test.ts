// A save that fails anywhere cleans up exactly once, leaves no dirty log behind, and says what failed.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import type { SaveOps } from '../../src/guest/ops.js';
import { saveOpsX86Hvm } from '../../src/guest/x86-hvm/save.js';
import { MemoryDomain, type MemoryDomainCall } from '../memory/domain.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { type SaveOptions, saveDomain } from '../../src/save/save.js';
import type { StreamSink } from '../../src/stream/flow.js';
import { DomainType } from '../../src/stream/format.js';
import { driver, RecordingSink } from './support.js';

const PAGES = 40;

interface Trial {
  readonly domain: MemoryDomain;
  readonly options: SaveOptions;
  readonly cleanups: () => number;
}

async function trial(
  streamType: 'plain' | 'remus',
  sink: StreamSink = new RecordingSink(),
  emulator = false,
): Promise<Trial> {
  const domain = new MemoryDomain({ pages: PAGES, emulator });
  let cleanups = 0;
  const ops: SaveOps = {
    ...saveOpsX86Hvm,
    async cleanup(context) {
      cleanups++;
      await saveOpsX86Hvm.cleanup(context);
    },
  };
  await domain.start();
  const callbacks = driver({
    domain,
    checkpoints: 3,
    between: () => {
      domain.dirty([1, 2, 3]);
    },
  });
  const options = { domain, sink, streamType, live: true, debug: true, callbacks, ops, slabBytes: 10 * 4120 };
  return { domain, options, cleanups: () => cleanups };
}

async function failureOf(work: Promise<unknown>): Promise<RomulusError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof RomulusError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('a failing save', () => {
  for (const [streamType, emulator] of [
    ['plain', false],
    ['remus', false],
    ['plain', true],
    ['remus', true],
  ] as const) {
    const kind = `${streamType}${emulator ? ', with a device model' : ''}`;
    it(`cleans up exactly once when any call of the hypervisor fails (${kind})`, async () => {
      const whole = await trial(streamType, undefined, emulator);
      const from = whole.domain.calls;
      await saveDomain(whole.options);
      expect(whole.cleanups()).to.equal(1);
      const calls = whole.domain.calls;
      expect(calls).to.be.greaterThan(20);

      for (let fail = from; fail < calls; fail++) {
        const { domain, options, cleanups } = await trial(streamType, undefined, emulator);
        const failed: MemoryDomainCall[] = [];
        const states: string[] = [];
        domain.script = (call, number) => {
          if (number !== fail) return;
          failed.push(call);
          states.push(domain.state);
          throw new HypervisorError('FAILED', 'as scripted', { number });
        };
        const error = await failureOf(saveDomain(options));
        expect(failed, `call ${fail}`).to.have.length(1);
        const told = error.code === 'CLEANUP_FAILED' ? error.cause : error;
        expect((told as RomulusError).facts).to.deep.equal({ number: fail });
        // The very first call finds out what is to be saved: nothing is set up yet.
        expect(cleanups(), `call ${fail}: ${failed.join()}`).to.equal(fail === from ? 0 : 1);
        const cleaning = failed[0] === 'disableLogDirty';
        expect(domain.loggingDirty).to.equal(cleaning);
        // Neither resumed nor stopped: the caller decides.
        if (!cleaning) expect([domain.state]).to.deep.equal(states);
      }
    });
  }

  it('reports the first failure and keeps that of the clean-up', async () => {
    const { domain, options } = await trial('remus');
    domain.script = (call) => {
      if (call === 'hvmContext') throw new HypervisorError('FAILED', 'no context');
      if (call === 'disableLogDirty') throw new HypervisorError('FAILED', 'no clean-up');
    };
    const error = await failureOf(saveDomain(options));
    expect(error.message).to.equal('no context');
    expect(error.suppressed.map(({ message }) => message)).to.deep.equal(['no clean-up']);
  });

  it('fails when the sink fails, in any call, and the checkpoint that could not be sent says so', async () => {
    const whole = new CountingSink(Infinity);
    await saveDomain((await trial('remus', whole)).options);
    expect(whole.calls).to.be.greaterThan(15);
    for (let fail = 0; fail < whole.calls; fail++) {
      const { domain, options, cleanups } = await trial('remus', new CountingSink(fail));
      const error = await failureOf(saveDomain(options));
      expect(error.facts).to.deep.equal({ call: fail });
      expect(cleanups()).to.equal(1);
      expect(domain.loggingDirty).to.equal(false);
      expect(domain.state).to.be.oneOf(['running', 'suspended']);
    }
  });

  it('tells a driver that gave up because of the sink what the sink said', async () => {
    const { options } = await trial('remus', new CountingSink(2));
    const callbacks = {
      ...options.callbacks,
      async checkpoint(_epoch: number, sent: Promise<unknown>): Promise<'abort'> {
        await sent.catch(() => undefined);
        return 'abort';
      },
    };
    const error = await failureOf(saveDomain({ ...options, callbacks }));
    expect(error.facts).to.deep.equal({ call: 2 });
  });

  it('can be given up by the policy and by the driver', async () => {
    const first = await trial('plain');
    const byPolicy = saveDomain({
      ...first.options,
      callbacks: { ...first.options.callbacks, precopyPolicy: () => 'abort' },
    });
    expect((await failureOf(byPolicy)).code).to.equal('ABORTED');
    expect(first.domain.state).to.equal('running');
    expect(first.domain.loggingDirty).to.equal(false);

    const second = await trial('remus');
    const byDriver = saveDomain({
      ...second.options,
      callbacks: { ...second.options.callbacks, checkpoint: () => Promise.resolve('abort') },
    });
    const error = await failureOf(byDriver);
    expect(error.code).to.equal('ABORTED');
    expect(error.facts).to.deep.equal({ epoch: 0 });
    expect(second.domain.state).to.equal('running');
  });

  it('does not believe a suspend callback that did not suspend', async () => {
    const { options } = await trial('plain');
    const callbacks = { ...options.callbacks, suspend: () => Promise.resolve() };
    expect((await failureOf(saveDomain({ ...options, callbacks }))).code).to.equal('NOT_SUSPENDED');
  });

  it('refuses what it cannot do before it touches the domain', async () => {
    const { domain, options } = await trial('plain');
    const calls = domain.calls;
    expect((await failureOf(saveDomain({ ...options, streamType: 'colo' }))).code).to.equal('BAD_OPTIONS');
    for (const slabBytes of [0, 4096, 4121, 1e9 + 1, NaN]) {
      expect((await failureOf(saveDomain({ ...options, slabBytes }))).code).to.equal('BAD_OPTIONS');
    }
    for (const slabCount of [0, 1.5, NaN]) {
      expect((await failureOf(saveDomain({ ...options, slabCount }))).code).to.equal('BAD_OPTIONS');
    }
    expect(domain.calls).to.equal(calls);

    const paravirtual = new MemoryDomain({ pages: 1, type: DomainType.X86_PV });
    const error = await failureOf(
      saveDomain({
        domain: paravirtual,
        sink: options.sink,
        streamType: 'plain',
        live: false,
        callbacks: options.callbacks,
      }),
    );
    expect(error.code).to.equal('UNSUPPORTED_DOMAIN_TYPE');
  });

  it('does not believe a device model that has no state', async () => {
    for (const streamType of ['plain', 'remus'] as const) {
      const { domain, options } = await trial(streamType, undefined, true);
      domain.emulatorState = new Uint8Array(0);
      expect((await failureOf(saveDomain(options))).code).to.equal('EMPTY_CONTEXT');
    }
  });

  it('names the page whose type it does not know', async () => {
    const { domain, options } = await trial('plain');
    domain.pageTypes = (_gfns, count, types) => {
      types.fill(0, 0, count);
      types[5] = 6;
      return Promise.resolve();
    };
    const error = await failureOf(saveDomain(options));
    expect(error.code).to.equal('UNKNOWN_PAGE_TYPE');
    expect(error.facts).to.deep.equal({ pfn: 5, gfn: 5, type: 6 });
  });
});

/** Fails its call number `fail`, whichever it is. */
class CountingSink implements StreamSink {
  calls = 0;
  readonly #fail: number;

  constructor(fail: number) {
    this.#fail = fail;
  }

  write(): Promise<void> {
    return this.#count();
  }

  boundary(): Promise<void> {
    return this.#count();
  }

  drain(): Promise<void> {
    return this.#count();
  }

  #count(): Promise<void> {
    const call = this.calls++;
    return call === this.#fail
      ? Promise.reject(new RomulusError('SINK', 'as scripted', { call }))
      : Promise.resolve();
  }
}
