// The steps of a restore, taken by hand: what touches the domain when, what a broken channel is at each of them.

import { expect } from 'chai';
import type { RomulusError } from '../../src/errors.js';
import type { RestoreOps } from '../../src/guest/ops.js';
import { restoreOpsX86Hvm } from '../../src/guest/x86-hvm/restore.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { openRestore, type RestoreSteps } from '../../src/restore/steps.js';
import { DomainType, PageType, RecordType } from '../../src/stream/format.js';
import type { RecordSource } from '../../src/stream/flow.js';
import {
  EmulatorId,
  LibxlRecordType,
  encodeEmulatorContext,
  encodeLibxlHeader,
} from '../../src/stream/libxl.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { MemoryDomain } from '../memory/domain.js';
import { sourceOf, targetFor } from '../save/support.js';
import { pageDataBody } from '../stream/streams.js';

const headers = encodeHeaders({ domainType: DomainType.X86_HVM, xenMajor: 4, xenMinor: 17 });
const sde = encodeRecord(RecordType.STATIC_DATA_END);
const end = encodeRecord(RecordType.END);
const checkpoint = encodeRecord(RecordType.CHECKPOINT);
const context = encodeRecord(RecordType.HVM_CONTEXT, Uint8Array.of(1, 2, 3));

function epoch(fill: number): Uint8Array {
  const page = encodeRecord(RecordType.PAGE_DATA, pageDataBody([[0, PageType.NOTAB]], fill));
  return concatenate([page, context, checkpoint]);
}

interface Trial {
  readonly domain: MemoryDomain;
  readonly steps: RestoreSteps;
  readonly cleanups: () => number;
}

async function trial(records: readonly Uint8Array[], source?: RecordSource): Promise<Trial> {
  const domain = targetFor(4);
  let cleanups = 0;
  const ops: RestoreOps = {
    ...restoreOpsX86Hvm,
    cleanup(of) {
      cleanups++;
      return restoreOpsX86Hvm.cleanup(of);
    },
  };
  const steps = await openRestore({
    domain,
    source: source ?? sourceOf(concatenate([headers, sde, ...records])),
    streamType: 'remus',
    callbacks: {},
    ops,
  });
  return { domain, steps, cleanups: () => cleanups };
}

/** What page 0 begins with: pageDataBody() counts up from `fill`. */
const first = ({ domain }: Trial): number | undefined => domain.memory[0];
const start = (fill: number): number | undefined => pageDataBody([[0, PageType.NOTAB]], fill)[16];

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    return (error as RomulusError).code;
  }
}

describe('the steps of a restore', () => {
  it('receive and commit each checkpoint, and complete the domain after END', async () => {
    const one = await trial([epoch(1), epoch(2), end]);
    const { steps, cleanups } = one;
    expect(await steps.receive()).to.deep.equal({ kind: 'checkpoint', epoch: 0 });
    // The first is applied as it comes.
    expect(first(one)).to.equal(start(1));
    const zero = await steps.commit();
    expect(zero).to.deep.include({ kind: 'applied' });
    expect(await steps.receive()).to.deep.equal({ kind: 'checkpoint', epoch: 1 });
    expect(first(one)).to.equal(start(1));
    const committed = await steps.commit();
    expect(committed.kind === 'applied' ? committed.applied : null).to.include({
      epoch: 1,
      records: 2,
      pages: 1,
    });
    expect(first(one)).to.equal(start(2));
    expect(await steps.receive()).to.deep.equal({ kind: 'end', epochs: 2 });
    expect(await steps.complete()).to.deep.equal({ kind: 'complete', epochs: 2 });
    expect(cleanups()).to.equal(0);
    expect(await steps.close(null)).to.equal(null);
    expect(cleanups()).to.equal(1);
  });

  it('drop an epoch that was received and not committed when the channel breaks', async () => {
    const one = await trial([epoch(1), epoch(2)]);
    const { steps } = one;
    await steps.receive();
    await steps.commit();
    expect(await steps.receive()).to.deep.equal({ kind: 'checkpoint', epoch: 1 });
    expect(await steps.breakOff(null)).to.deep.equal({ kind: 'failover', epoch: 0 });
    expect(first(one)).to.equal(start(1));
    expect(await steps.close(null)).to.equal(null);
  });

  it('give a broken channel as a result, with its cause where the stream did not simply end', async () => {
    const bad = encodeRecord(RecordType.CHECKPOINT, Uint8Array.of(1));
    for (const [rest, code] of [
      [[], null],
      [[epoch(2).subarray(0, 100)], null],
      [[bad], 'BAD_RECORD'],
    ] as const) {
      const one = await trial([epoch(1), ...rest]);
      const { steps } = one;
      await steps.receive();
      await steps.commit();
      const received = await steps.receive();
      if (received.kind !== 'broken') throw new Error(`received: ${received.kind}`);
      const cause = received.cause as RomulusError | null;
      expect(cause?.code ?? null).to.equal(code);
      const outcome = await steps.breakOff(cause);
      expect(outcome).to.deep.equal({ kind: 'failover', epoch: 0, ...(cause === null ? {} : { cause }) });
      expect(first(one)).to.equal(start(1));
      await steps.close(null);
    }
  });

  it('have nothing to fail over to before the first commit', async () => {
    for (const received of [true, false]) {
      const { steps, cleanups } = await trial(received ? [epoch(1)] : []);
      expect((await steps.receive()).kind).to.equal(received ? 'checkpoint' : 'broken');
      const failure = await steps.breakOff(null).catch((error: unknown) => error as RomulusError);
      if (!(failure instanceof Error)) throw new Error('it did not fail');
      expect(failure.code).to.equal('NO_CONSISTENT_CHECKPOINT');
      expect(await steps.close(failure)).to.equal(failure);
      expect(cleanups()).to.equal(1);
    }
  });

  it('reject when the domain fails: the first epoch while it is received, the others when they are committed', async () => {
    const scripted = (): never => {
      throw new HypervisorError('FAILED', 'as scripted');
    };
    const early = await trial([epoch(1)]);
    early.domain.script = scripted;
    expect(await codeOf(early.steps.receive())).to.equal('FAILED');
    await early.steps.close(null);

    const late = await trial([epoch(1), epoch(2)]);
    await late.steps.receive();
    await late.steps.commit();
    await late.steps.receive();
    late.domain.script = scripted;
    expect(await codeOf(late.steps.commit())).to.equal('FAILED');
    await late.steps.close(null);
  });

  it('go back to the epoch that the domain can be started from', async () => {
    const refused = new HypervisorError('BAD_CONTEXT', 'as scripted');
    class Trying extends MemoryDomain {
      readonly checkpointsBack = 1;
      tries = 0;
      checkpoint(): Promise<void> {
        this.tries++;
        return this.tries === 2 ? Promise.reject(refused) : Promise.resolve();
      }
    }
    const state = encodeEmulatorContext({
      emulatorId: EmulatorId.QEMU_UPSTREAM,
      index: 0,
      context: Uint8Array.of(1),
    });
    const emulator = [
      encodeRecord(LibxlRecordType.EMULATOR_CONTEXT, state),
      encodeRecord(LibxlRecordType.CHECKPOINT_END),
    ];
    const opening = [encodeLibxlHeader(), encodeRecord(LibxlRecordType.LIBXC_CONTEXT), headers, sde];
    const domain = new Trying({ pages: 4, empty: true, emulator: true });
    const steps = await openRestore({
      domain,
      source: sourceOf(concatenate([...opening, epoch(1), ...emulator, epoch(2), ...emulator])),
      streamType: 'remus',
      callbacks: {},
    });
    // The first is tried before it may be acknowledged.
    expect((await steps.receive()).kind).to.equal('checkpoint');
    expect(domain.tries).to.equal(1);
    await steps.commit();
    await steps.receive();
    expect(domain.tries).to.equal(1);
    expect(await steps.commit()).to.deep.equal({
      kind: 'unusable',
      outcome: { kind: 'failover', epoch: 0, cause: refused },
    });
    await steps.close(null);
  });

  it('close when the step under way has come to its end, not before', async () => {
    let readOn: () => void = () => undefined;
    const octets = sourceOf(concatenate([headers, sde]));
    const { steps, cleanups } = await trial([], {
      headers: () => octets.headers(),
      read: () => new Promise((resolve) => (readOn = () => resolve(null))),
    });
    const received = steps.receive();
    const closed = steps.close(null);
    await new Promise((resolve) => setImmediate(resolve));
    expect(cleanups()).to.equal(0);
    readOn();
    expect(await received).to.deep.equal({ kind: 'broken', cause: null });
    expect(await closed).to.equal(null);
    expect(cleanups()).to.equal(1);
  });
});
