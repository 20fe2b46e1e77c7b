import { expect } from 'chai';
import fc from 'fast-check';
import { stepPrimary } from '../../src/primary/life.js';
import {
  initialPrimaryState,
  isContinuous,
  mayBeHeld,
  primaryLinkState,
  type PrimaryEffect,
  type PrimaryEvent,
  type PrimarySettings,
  type PrimaryState,
} from '../../src/primary/life-state.js';
import { VirtualMachine, words } from '../service/virtual-machine.js';

const settings: PrimarySettings = {
  intervalMs: 50,
  windowEpochs: 1,
  acknowledgeTimeoutMs: 5000,
  whenUnprotected: 'hold',
  startWithSecondary: false,
  stallMs: 500,
  standstill: null,
};

type Machine = VirtualMachine<PrimaryState, PrimaryEvent, PrimaryEffect>;
type Bare = PrimaryEvent extends infer E ? (E extends unknown ? Omit<E, 'atMs'> : never) : never;

function machine(changes: Partial<PrimarySettings> = {}, running = false): Machine {
  const made: Machine = new VirtualMachine<PrimaryState, PrimaryEvent, PrimaryEffect>(
    stepPrimary,
    initialPrimaryState({ ...settings, ...changes }, 1000),
    (event, atMs) => ({ ...event, atMs }),
    (timer) => ({ kind: 'timer', timer: timer === 'interval' ? 'interval' : 'acknowledge' }),
  );
  made.give({ kind: 'start', orphaned: false, running });
  return made;
}

/** The saver's side of one checkpoint, as the runner tells it. */
function capture(m: Machine, epoch: number, streamUuid = 'A'): readonly PrimaryEffect[] {
  return [
    ...m.give({ kind: 'suspending', streamUuid, epoch }),
    ...m.give({ kind: 'captured', streamUuid, epoch }),
    ...m.give({ kind: 'ready', streamUuid, epoch }),
  ];
}

/** A machine whose stream A has `epochs` acknowledged checkpoints; the saver waits. */
function replicating(epochs = 1, changes: Partial<PrimarySettings> = {}): Machine {
  const m = machine(changes);
  m.give({ kind: 'linked', streamUuid: 'A' });
  for (let epoch = 0; epoch < epochs; epoch++) {
    if (epoch > 0) expect(words(m.advance(settings.intervalMs))).to.deep.equal(['decide continue']);
    capture(m, epoch);
    m.give({ kind: 'acknowledged', streamUuid: 'A', epoch });
  }
  m.effects = [];
  return m;
}

describe('primary/life', () => {
  describe('the way up', () => {
    it('starts, links, takes the first checkpoint, releases at its acknowledgement', () => {
      const m = machine();
      expect(words(m.effects)).to.deep.equal(['start-domain']);
      expect(words(m.give({ kind: 'linked', streamUuid: 'A' }))).to.deep.equal([
        'restart-gate',
        'save',
        'transition linked',
      ]);
      expect(primaryLinkState(m.state)).to.equal('syncing');
      expect(words(capture(m, 0))).to.deep.equal(['hold']);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 0 }))).to.deep.equal([
        'release 0',
        'report 0',
        'transition first checkpoint acknowledged',
      ]);
      expect(primaryLinkState(m.state)).to.equal('replicating');
    });

    it('with-secondary: the domain starts at the first link, and only once', () => {
      const m = machine({ startWithSecondary: true });
      expect(m.effects).to.deep.equal([]);
      expect(words(m.give({ kind: 'linked', streamUuid: 'A' }))[0]).to.equal('start-domain');
      m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      expect(words(m.give({ kind: 'linked', streamUuid: 'B' }))).not.to.include('start-domain');
    });

    it('with-secondary: a domain that was found running is not cut off until the first link', () => {
      const m = machine({ startWithSecondary: true, whenUnprotected: 'pass' }, true);
      expect(words(m.effects)).to.deep.equal(['start-domain', 'pass']);
      expect(words(m.give({ kind: 'linked', streamUuid: 'A' }))).not.to.include('start-domain');
    });

    it('pass: lets output out until the first checkpoint of a stream holds it, and again when the link is lost', () => {
      const m = machine({ whenUnprotected: 'pass' });
      expect(words(m.effects)).to.deep.equal(['start-domain', 'pass']);
      m.give({ kind: 'linked', streamUuid: 'A' });
      expect(words(capture(m, 0))).to.deep.equal(['hold']);
      expect(words(m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' }))).to.include('pass');
      expect(isContinuous(m.state, { streamUuid: 'A', epoch: 0 })).to.equal(false);
    });
  });

  describe('a hypervisor that hangs, and a machine that changes', () => {
    it('hung, and a secondary may hold a checkpoint: as dead; else the link is dropped, no more', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'save-failed', streamUuid: 'A', code: 'HUNG' }))).to.include.members([
        'discard',
        'withdraw',
        'drop-link INTERNAL',
        'let-go stopped',
        'finished',
      ]);
      expect(m.state.role).to.equal('failed');
      const alone = machine();
      alone.give({ kind: 'linked', streamUuid: 'A' });
      expect(words(alone.give({ kind: 'save-failed', streamUuid: 'A', code: 'HUNG' }))).to.include(
        'drop-link INTERNAL',
      );
      expect(alone.state.role).to.equal('primary');
    });

    it('changed: the link is dropped by name, the domain goes on; the next secondary is welcome', () => {
      const m = replicating();
      const effects = m.give({ kind: 'machine-changed', message: 'devices: dice' });
      expect(effects.find(({ kind }) => kind === 'drop-link')).to.include({
        code: 'DOMAIN_MISMATCH',
        message: 'devices: dice',
      });
      expect(m.state.role).to.equal('primary');
      expect(words(m.give({ kind: 'machine-changed', message: 'devices: none' }))).to.deep.equal([]);
      expect(words(m.give({ kind: 'linked', streamUuid: 'B' }))).to.include('save');
    });
  });

  describe('triggers', () => {
    it('gives the domain its interval between two pauses, however long they are', () => {
      const m = replicating();
      m.advance(50);
      m.give({ kind: 'suspending', streamUuid: 'A', epoch: 1 });
      m.advance(70);
      m.give({ kind: 'captured', streamUuid: 'A', epoch: 1 });
      m.give({ kind: 'ready', streamUuid: 'A', epoch: 1 });
      m.advance(10);
      m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 });
      expect(m.armed('interval')).to.equal(40);
      expect(words(m.advance(39))).to.deep.equal([]);
      expect(words(m.advance(1))).to.deep.equal(['decide continue']);
    });

    it('window full: a trigger waits and fires at the acknowledgement', () => {
      const m = replicating();
      m.advance(50);
      capture(m, 1);
      expect(words(m.advance(200))).to.deep.equal([]);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.deep.equal([
        'release 1',
        'report 1',
        'decide continue',
      ]);
    });

    it('window of two: two epochs unacknowledged, not three', () => {
      const m = replicating(1, { windowEpochs: 2 });
      expect(words(m.advance(50))).to.deep.equal(['decide continue']);
      capture(m, 1);
      expect(words(m.advance(50))).to.deep.equal(['decide continue']);
      capture(m, 2);
      expect(words(m.advance(50))).to.deep.equal([]);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.include(
        'decide continue',
      );
    });

    it('a request is taken ahead of the interval, and one that comes while the saver works is taken next', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'request' }))).to.deep.equal(['decide continue']);
      m.give({ kind: 'suspending', streamUuid: 'A', epoch: 1 });
      m.give({ kind: 'request' });
      m.give({ kind: 'captured', streamUuid: 'A', epoch: 1 });
      m.give({ kind: 'ready', streamUuid: 'A', epoch: 1 });
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.include(
        'decide continue',
      );
      expect(words(capture(m, 2))).to.deep.equal([]);
    });

    it('pressure stops the domain and takes a checkpoint; it goes on when the output is out', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'pressure', on: true }))).to.deep.equal(['pause-domain']);
      expect(words(m.give({ kind: 'pressure', on: true }))).to.deep.equal([]);
      // It stands still.
      expect(words(m.give({ kind: 'request' }))).to.deep.equal(['decide continue']);
      capture(m, 1);
      m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 });
      expect(words(m.give({ kind: 'pressure', on: false }))).to.deep.equal(['unpause-domain']);
    });
  });

  describe('what was let out and has not left', () => {
    it('does not make the checkpoints of a domain that is stopped for it follow upon one another', () => {
      const m = replicating();
      m.give({ kind: 'pressure', on: true });
      m.give({ kind: 'request' });
      capture(m, 1);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).not.to.include(
        'decide continue',
      );
      expect(words(m.advance(50))).to.deep.equal(['decide continue']);
    });

    it('is held again when the link is lost, for the secondary may take over', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' }))).to.deep.equal([
        'abandon',
        'hold',
        'transition LINK_CLOSED',
      ]);
    });

    it('may leave when the secondary has said that it will not take over', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'bye', streamUuid: 'A', reason: 'shutdown' }))).not.to.include('hold');
    });

    it('is held again after a stop of this process, until the next checkpoint is acknowledged', () => {
      const m = replicating();
      m.jump(700);
      expect(words(m.give({ kind: 'beat' }))).to.deep.equal(['hold']);
      m.advance(50);
      capture(m, 1);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.include('release 1');
    });
  });

  describe('acknowledgements', () => {
    it('late, but within the time: released', () => {
      const m = replicating();
      m.advance(50);
      capture(m, 1);
      for (let i = 0; i < 49; i++) {
        m.advance(100);
        m.give({ kind: 'beat' });
      }
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.include('release 1');
    });

    it('too late: the link is dropped, and the acknowledgement that comes then releases nothing', () => {
      const m = replicating();
      m.advance(50);
      capture(m, 1);
      expect(words(m.advance(5000))).to.deep.equal([
        'hold',
        'drop-link ACKNOWLEDGE_TIMEOUT',
        'abandon',
        'hold',
        'transition ACKNOWLEDGE_TIMEOUT',
      ]);
      expect(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 })).to.deep.equal([]);
      expect(m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' })).to.deep.equal([]);
    });

    for (const [name, epoch] of [
      ['a duplicate', 1],
      ['one for a future epoch', 3],
      ['one out of order', 0],
    ] as const) {
      it(`${name} is a protocol error`, () => {
        const m = replicating(2);
        m.advance(50);
        capture(m, 2);
        const effects = words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch }));
        expect(effects[0]).to.equal('drop-link BAD_MESSAGE');
        expect(effects.some((word) => word.startsWith('release'))).to.equal(false);
        expect(primaryLinkState(m.state)).to.equal('down');
      });
    }

    it('before anything was captured is a protocol error', () => {
      const m = machine();
      m.give({ kind: 'linked', streamUuid: 'A' });
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 0 }))[0]).to.equal(
        'drop-link BAD_MESSAGE',
      );
    });

    it('found after a stop of the process: the epoch is reported, its output waits for a fresh one', () => {
      const m = replicating();
      m.advance(50);
      capture(m, 1);
      m.jump(60_000);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.deep.equal([
        'hold',
        'report 1',
      ]);
      expect(words(m.give({ kind: 'timer', timer: 'interval' }))).to.deep.equal(['decide continue']);
      capture(m, 2);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 2 }))).to.include('release 2');
    });
  });

  describe('link lost', () => {
    const phases: Record<string, (m: Machine) => void> = {
      idle: () => undefined,
      suspending: (m) => {
        m.advance(50);
        m.give({ kind: 'suspending', streamUuid: 'A', epoch: 1 });
      },
      sending: (m) => {
        m.advance(50);
        m.give({ kind: 'suspending', streamUuid: 'A', epoch: 1 });
        m.give({ kind: 'captured', streamUuid: 'A', epoch: 1 });
      },
      'awaiting the acknowledgement': (m) => {
        m.advance(50);
        capture(m, 1);
      },
    };
    for (const [name, prepare] of Object.entries(phases)) {
      it(`while ${name}: the stream is abandoned, nothing is released, timers are off`, () => {
        const m = replicating();
        prepare(m);
        m.effects = [];
        expect(words(m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' }))).to.deep.equal([
          'abandon',
          'hold',
          'transition LINK_CLOSED',
        ]);
        expect(m.armed('interval')).to.equal(null);
        expect(m.armed('acknowledge')).to.equal(null);
        // What the saver still says of it means nothing.
        expect(capture(m, 2)).to.deep.equal([]);
        expect(words(m.give({ kind: 'save-failed', streamUuid: 'A', code: 'ABORTED' }))).to.deep.equal([]);
        expect(m.state.role).to.equal('primary');
      });
    }

    it('a secondary that restarts gets a new stream from epoch 0', () => {
      const m = replicating(3);
      m.give({ kind: 'bye', streamUuid: 'A', reason: 'shutdown' });
      expect(words(m.give({ kind: 'linked', streamUuid: 'B' }))).to.deep.equal([
        'restart-gate',
        'save',
        'transition linked',
      ]);
      capture(m, 0, 'B');
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'B', epoch: 0 }))).to.include('release 0');
    });

    it('a failing saver costs the link, not the domain', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'save-failed', streamUuid: 'A', code: 'FAILED' }))[0]).to.equal(
        'drop-link INTERNAL',
      );
      expect(m.state.role).to.equal('primary');
    });
  });

  describe('continuous', () => {
    it('while nothing was let out after the epoch that the standby holds', () => {
      const m = replicating(3);
      expect(isContinuous(m.state, { streamUuid: 'A', epoch: 2 })).to.equal(true);
      // Its acknowledgement was lost, it holds more than we know.
      expect(isContinuous(m.state, { streamUuid: 'A', epoch: 3 })).to.equal(true);
      expect(isContinuous(m.state, { streamUuid: 'A', epoch: 1 })).to.equal(false);
      expect(isContinuous(m.state, { streamUuid: 'X', epoch: 2 })).to.equal(false);
      expect(isContinuous(m.state, { streamUuid: null, epoch: null })).to.equal(false);
    });

    it('over a resync that is not complete, and no longer when it is', () => {
      const m = replicating(3);
      m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      m.give({ kind: 'linked', streamUuid: 'B' });
      expect(isContinuous(m.state, { streamUuid: 'A', epoch: 2 })).to.equal(true);
      capture(m, 0, 'B');
      // The standby has B's first checkpoint, and we have not heard of it.
      m.give({ kind: 'lost', streamUuid: 'B', code: 'LINK_CLOSED' });
      expect(isContinuous(m.state, { streamUuid: 'B', epoch: 0 })).to.equal(true);
      m.give({ kind: 'linked', streamUuid: 'C' });
      capture(m, 0, 'C');
      m.give({ kind: 'acknowledged', streamUuid: 'C', epoch: 0 });
      expect(isContinuous(m.state, { streamUuid: 'A', epoch: 2 })).to.equal(false);
      expect(isContinuous(m.state, { streamUuid: 'B', epoch: 0 })).to.equal(false);
      expect(isContinuous(m.state, { streamUuid: 'C', epoch: 0 })).to.equal(true);
    });
  });

  describe('what a secondary may hold', () => {
    it('is any epoch that was captured, of this stream or of one before, and nothing else', () => {
      const m = replicating(3);
      m.advance(settings.intervalMs);
      capture(m, 3);
      const held = (streamUuid: string, epoch: number) => mayBeHeld(m.state, { streamUuid, epoch });
      expect([0, 2, 3, 4].map((epoch) => held('A', epoch))).to.deep.equal([true, true, true, false]);
      m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      // A resync that never came to a checkpoint, and one whose first acknowledgement was lost.
      m.give({ kind: 'linked', streamUuid: 'B' });
      m.give({ kind: 'lost', streamUuid: 'B', code: 'LINK_CLOSED' });
      m.give({ kind: 'linked', streamUuid: 'C' });
      capture(m, 0, 'C');
      m.give({ kind: 'lost', streamUuid: 'C', code: 'LINK_CLOSED' });
      expect([held('A', 3), held('A', 4), held('B', 0), held('C', 0), held('D', 0)]).to.deep.equal([
        true,
        false,
        false,
        true,
        false,
      ]);
    });

    it('is remembered however often the link is lost, within bounds', () => {
      const m = replicating(1, { whenUnprotected: 'pass' });
      m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      for (let i = 0; i < 1000; i++) {
        m.give({ kind: 'linked', streamUuid: `S${i}` });
        capture(m, 0, `S${i}`);
        m.give({ kind: 'lost', streamUuid: `S${i}`, code: 'LINK_CLOSED' });
      }
      expect(mayBeHeld(m.state, { streamUuid: 'A', epoch: 0 })).to.equal(true);
      for (let i = 0; i < 1000; i++) {
        m.give({ kind: 'linked', streamUuid: `T${i}` });
        capture(m, 0, `T${i}`);
        m.give({ kind: 'lost', streamUuid: `T${i}`, code: 'LINK_CLOSED' });
      }
      expect(m.state.sent).to.have.length.at.most(1024);
    });
  });

  describe('the domain shuts down', () => {
    it('between checkpoints: END, and all is let out at its acknowledgement', () => {
      const m = replicating(2);
      expect(words(m.give({ kind: 'domain-shutdown' }))).to.deep.equal(['decide finish']);
      m.give({ kind: 'end-sent', streamUuid: 'A', epoch: 2 });
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 2 }))).to.deep.equal([
        'abandon',
        'pass',
        'bye domain-ended',
        'transition the domain shut down',
        'finished',
      ]);
      expect(m.state.role).to.equal('ended');
    });

    it('in mid-checkpoint, which cannot be finished: bye, nothing let out, and nobody takes over', () => {
      const m = replicating(1);
      m.advance(50);
      m.give({ kind: 'suspending', streamUuid: 'A', epoch: 1 });
      m.give({ kind: 'domain-shutdown' });
      expect(words(m.give({ kind: 'save-failed', streamUuid: 'A', code: 'DOMAIN_GONE' }))).to.deep.equal([
        'abandon',
        'bye domain-ended',
        'transition the domain shut down in a checkpoint',
        'finished',
      ]);
      expect(m.state.role).to.equal('ended');
    });

    it('in mid-checkpoint: the saver is told to finish when it asks', () => {
      const m = replicating(1);
      m.advance(50);
      m.give({ kind: 'suspending', streamUuid: 'A', epoch: 1 });
      m.give({ kind: 'captured', streamUuid: 'A', epoch: 1 });
      expect(words(m.give({ kind: 'domain-shutdown' }))).to.deep.equal([]);
      expect(words(m.give({ kind: 'ready', streamUuid: 'A', epoch: 1 }))).to.deep.equal(['decide finish']);
      m.give({ kind: 'end-sent', streamUuid: 'A', epoch: 2 });
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.deep.equal([
        'release 1',
        'report 1',
      ]);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 2 }))).to.include('pass');
    });

    it('found by the suspend: the saver sends END by itself', () => {
      const m = replicating(1);
      m.advance(50);
      m.give({ kind: 'suspending', streamUuid: 'A', epoch: 1 });
      m.give({ kind: 'end-sent', streamUuid: 'A', epoch: 1 });
      expect(words(m.give({ kind: 'domain-shutdown' }))).to.deep.equal([]);
      expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))).to.include('finished');
    });

    it('with the window full: END does not wait for the window', () => {
      const m = replicating(1);
      m.advance(50);
      capture(m, 1);
      expect(words(m.give({ kind: 'domain-shutdown' }))).to.deep.equal(['decide finish']);
    });

    it('in the first checkpoint: bye, and no output', () => {
      const m = machine();
      m.give({ kind: 'linked', streamUuid: 'A' });
      expect(words(m.give({ kind: 'domain-shutdown' }))).to.deep.equal([
        'abandon',
        'bye domain-ended',
        'transition the domain shut down unprotected',
        'finished',
      ]);
    });

    it('and the link is lost before END is acknowledged: ended, nothing let out; a standby that comes back is told', () => {
      const m = replicating(2);
      m.give({ kind: 'domain-shutdown' });
      m.give({ kind: 'end-sent', streamUuid: 'A', epoch: 2 });
      const effects = words(m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' }));
      expect(effects).to.include('finished');
      expect(effects).not.to.include('pass');
      expect(m.state.role).to.equal('ended');
      expect(words(m.give({ kind: 'linked', streamUuid: 'B' }))).to.deep.equal(['bye domain-ended']);
    });

    it('END that is never acknowledged: the time ends it', () => {
      const m = replicating(2);
      m.give({ kind: 'domain-shutdown' });
      m.give({ kind: 'end-sent', streamUuid: 'A', epoch: 2 });
      expect(words(m.advance(5000))).to.include('drop-link ACKNOWLEDGE_TIMEOUT');
      expect(m.state.role).to.equal('ended');
    });
  });

  it('a crash of the domain drops the link with its output, so that the secondary takes over', () => {
    const m = replicating();
    expect(words(m.give({ kind: 'domain-crashed', reason: 'worker died' }))).to.deep.equal([
      'discard',
      'withdraw',
      'drop-link INTERNAL',
      'abandon',
      'let-go stopped',
      'transition crashed: worker died',
      'finished',
    ]);
  });

  it('fenced: output is discarded first, then all is torn down; once', () => {
    const m = replicating();
    m.advance(50);
    capture(m, 1);
    expect(words(m.give({ kind: 'fenced' }))).to.deep.equal([
      'discard',
      'drop-link FENCED',
      'abandon',
      'let-go stopped',
      'transition the secondary has taken over',
      'finished',
    ]);
    expect(m.give({ kind: 'fenced' })).to.deep.equal([]);
    expect(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 })).to.deep.equal([]);
    expect(words(m.give({ kind: 'linked', streamUuid: 'B' }))).to.deep.equal(['drop-link FENCED']);
  });

  describe('stop', () => {
    it('bye, and nothing after it but what becomes of the domain', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'stop' }))).to.deep.equal([
        'withdraw',
        'abandon',
        'bye shutdown',
        'transition stopped',
      ]);
      expect(m.give({ kind: 'linked', streamUuid: 'B' })).to.deep.equal([]);
      expect(m.give({ kind: 'goodbye', streamUuid: 'B', confirmed: true })).to.deep.equal([]);
      expect(words(m.give({ kind: 'goodbye', streamUuid: 'A', confirmed: true }))).to.deep.equal([
        'let-go free',
      ]);
      expect(m.give({ kind: 'goodbye', streamUuid: 'A', confirmed: true })).to.deep.equal([]);
    });

    it('a goodbye that may not have been read: what is held stays so, for the secondary may take over', () => {
      const m = replicating();
      m.give({ kind: 'stop' });
      expect(words(m.give({ kind: 'goodbye', streamUuid: 'A', confirmed: false }))).to.deep.equal([
        'discard',
        'let-go held',
      ]);
    });

    it('held if the link was lost before; not if the secondary had said goodbye, nor if it had no checkpoint', () => {
      const how = (before: (m: Machine) => void, m = replicating()): string[] => {
        before(m);
        return words(m.give({ kind: 'stop' }));
      };
      const lost = (m: Machine) => m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      const bye = (m: Machine) => m.give({ kind: 'bye', streamUuid: 'A', reason: 'shutdown' });
      expect(how(lost)).to.deep.equal(['withdraw', 'discard', 'let-go held', 'transition stopped']);
      expect(how(bye)).to.deep.equal(['withdraw', 'let-go free', 'transition stopped']);
      expect(how(() => undefined, machine())).to.deep.equal([
        'withdraw',
        'let-go free',
        'transition stopped',
      ]);
      const syncing = machine();
      syncing.give({ kind: 'linked', streamUuid: 'A' });
      expect(how(lost, syncing)).to.include('let-go free');
      // Its first checkpoint may have arrived though nobody has said so.
      const captured = machine();
      captured.give({ kind: 'linked', streamUuid: 'A' });
      capture(captured, 0);
      expect(how(lost, captured)).to.include('let-go held');
    });

    it('free whatever the secondary knows, if output passes unprotected', () => {
      const m = replicating(1, { whenUnprotected: 'pass' });
      m.give({ kind: 'stop' });
      expect(words(m.give({ kind: 'goodbye', streamUuid: 'A', confirmed: false }))).to.deep.equal([
        'let-go free',
      ]);
    });

    it('a domain that an agent before us left behind its gates is held, until a secondary of ours says goodbye', () => {
      const m = machine();
      m.give({ kind: 'start', orphaned: true, running: true });
      expect(words(m.give({ kind: 'stop' }))).to.include('let-go held');
      const linked = machine();
      linked.give({ kind: 'start', orphaned: true, running: true });
      linked.give({ kind: 'linked', streamUuid: 'A' });
      linked.give({ kind: 'stop' });
      expect(words(linked.give({ kind: 'goodbye', streamUuid: 'A', confirmed: true }))).to.deep.equal([
        'let-go free',
      ]);
    });

    it('a domain that was fenced or has failed is let go once', () => {
      const m = replicating();
      m.give({ kind: 'fenced' });
      expect(words(m.give({ kind: 'stop' }))).to.deep.equal(['withdraw', 'transition stopped']);
    });
  });

  it('a failure that no secondary can have answered: the domain is free', () => {
    const m = machine();
    expect(words(m.give({ kind: 'domain-failed', code: 'FAILED' }))).to.deep.equal([
      'withdraw',
      'let-go free',
      'transition FAILED',
      'finished',
    ]);
  });

  it('whatever happens in whatever order, output leaves only by an acknowledgement', () => {
    const uuid = fc.constantFrom('A', 'B', 'C');
    const epoch = fc.integer({ min: 0, max: 4 });
    const event: fc.Arbitrary<Bare> = fc.oneof(
      fc.record({ kind: fc.constant('linked' as const), streamUuid: uuid }),
      fc.record({
        kind: fc.constantFrom(
          'suspending' as const,
          'captured' as const,
          'ready' as const,
          'acknowledged' as const,
          'end-sent' as const,
        ),
        streamUuid: uuid,
        epoch,
      }),
      fc.record({
        kind: fc.constantFrom('save-failed' as const, 'lost' as const),
        streamUuid: uuid,
        code: fc.constant('LINK_CLOSED'),
      }),
      fc.record({
        kind: fc.constant('bye' as const),
        streamUuid: uuid,
        reason: fc.constant('shutdown' as const),
      }),
      fc.record({
        kind: fc.constant('goodbye' as const),
        streamUuid: uuid,
        confirmed: fc.boolean(),
      }),
      fc.record({
        kind: fc.constant('timer' as const),
        timer: fc.constantFrom('interval' as const, 'acknowledge' as const),
      }),
      fc.record({ kind: fc.constant('pressure' as const), on: fc.boolean() }),
      fc.constantFrom<Bare>(
        { kind: 'request' },
        { kind: 'beat' },
        { kind: 'domain-shutdown' },
        { kind: 'fenced' },
        { kind: 'stop' },
        { kind: 'domain-crashed', reason: 'x' },
      ),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(event, fc.constantFrom(0, 0, 10, 700)), { maxLength: 60 }),
        fc.integer({ min: 1, max: 3 }),
        (events, windowEpochs) => {
          const m = machine({ windowEpochs });
          let finished = 0;
          let letGo = 0;
          let silent = false;
          const released = new Map<string, number>();
          for (const [given, delay] of events) {
            m.jump(delay);
            const before = m.state;
            const effects = m.give(given);
            for (const effect of effects) {
              // After the discard nothing is let out any more.
              if (effect.kind === 'release' || effect.kind === 'pass') expect(silent).to.equal(false);
              if (effect.kind === 'discard') silent = true;
              if (effect.kind === 'release') {
                expect(given.kind).to.equal('acknowledged');
                const stream = before.stream;
                expect(stream).not.to.equal(null);
                if (!stream) continue;
                expect(effect.epoch).to.be.at.most(stream.captured);
                expect(effect.epoch).to.equal(stream.acknowledged + 1);
                expect(effect.epoch).to.be.greaterThan(released.get(stream.streamUuid + String(m.now)) ?? -1);
              }
              // Hold policy: the gate passes only when END is acknowledged.
              if (effect.kind === 'pass') expect(before.stream?.ending).to.equal('sent');
              if (effect.kind === 'decide') {
                expect(before.stream?.waiting === true || given.kind === 'ready').to.equal(true);
                if (effect.decision === 'continue') {
                  const after = m.state.stream;
                  expect((after?.captured ?? 0) - (after?.acknowledged ?? 0)).to.be.lessThan(windowEpochs);
                }
              }
              if (effect.kind === 'finished') finished++;
              if (effect.kind === 'let-go') {
                letGo++;
                // Free only if no secondary can have a checkpoint that it may take over from.
                const heard = given.kind === 'goodbye' && given.confirmed;
                if (effect.how === 'free') expect(heard || !before.exposed).to.equal(true);
                else if (before.role !== 'ended') expect(silent).to.equal(true);
              }
            }
          }
          expect([finished, letGo].every((count) => count <= 1)).to.equal(true);
          if (m.state.role === 'fenced' || m.state.role === 'failed') expect(m.state.stream).to.equal(null);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
