// What the primary remembers of its streams, and shows. What it does is in the transcripts (primary.test.ts).

import { expect } from 'chai';
import { mandateOf } from '../../src/failover/mandate.js';
import { written, type Register } from '../../src/failover/register.js';
import { enter, openLedger, type Entry } from '../../src/primary/ledger.js';
import { stepLife } from '../../src/primary/life.js';
import {
  birth,
  isContinuous,
  linkStateOf,
  type LifeEffect,
  type LifeEvent,
  type LifeSettings,
  type LifeState,
} from '../../src/primary/life-state.js';
import { mayRun } from '../../src/primary/life-standstill.js';

const settings: LifeSettings = {
  startWithStandby: false,
  stallMs: 500,
  standstill: null,
  handOverTimeoutMs: 5000,
};

const ALONE: Register = {
  ...{ generation: 1, mode: 'alone', owner: 'north', standby: null, stream: null, token: 'boot' },
};

/** A life, and the ledger of its present stream. The register is what is written, unless nobody answers. */
class Life {
  now = 1000;
  state: LifeState;
  isAnswered = true;
  #ledger = openLedger(0);

  constructor(changes: Partial<LifeSettings> = {}) {
    this.state = birth({ ...settings, ...changes }, this.now, mandateOf('north', 'n', ALONE));
    this.give({ kind: 'start', orphaned: false, running: false });
  }

  give(event: LifeEvent): readonly LifeEffect[] {
    const [state, effects] = stepLife(this.state, event, this.now);
    this.state = state;
    for (const effect of effects) {
      if (effect.kind !== 'write' || !this.isAnswered) continue;
      const { write } = effect;
      this.give({ kind: 'answered', token: write.token, won: true, register: written(write) });
    }
    return effects;
  }

  /** `stream`: by which pairing. */
  link(streamUuid: string, stream = streamUuid): void {
    this.#ledger = openLedger(this.now);
    this.give({ kind: 'linked', streamUuid, pairing: { standby: 'south', stream } });
  }

  captures(epoch: number): void {
    this.give({ kind: 'suspending', streamUuid: this.#streamUuid });
    this.give({ kind: 'stopping', streamUuid: this.#streamUuid });
    this.#enter({ kind: 'captured', epoch });
    this.give({ kind: 'captured', streamUuid: this.#streamUuid, ledger: this.#ledger });
  }

  ends(epoch: number): void {
    this.#enter({ kind: 'ending', epoch });
    this.give({ kind: 'captured', streamUuid: this.#streamUuid, ledger: this.#ledger });
  }

  acknowledges(epoch: number): void {
    this.#enter({ kind: 'acknowledged', epoch });
    this.give({ kind: 'acknowledged', streamUuid: this.#streamUuid, ledger: this.#ledger });
  }

  lose(streamUuid: string, code = 'LINK_CLOSED', message = code): readonly LifeEffect[] {
    return this.give({ kind: 'lost', streamUuid, code, message });
  }

  get #streamUuid(): string {
    return this.state.stream?.streamUuid ?? '';
  }

  #enter(entry: Entry): void {
    this.#ledger = enter(this.#ledger, entry, this.now, settings.stallMs);
  }
}

/** A life whose stream A has so many acknowledged checkpoints. */
function replicating(epochs = 1, changes: Partial<LifeSettings> = {}): Life {
  const life = new Life(changes);
  life.link('A');
  for (let epoch = 0; epoch < epochs; epoch++) {
    life.captures(epoch);
    life.acknowledges(epoch);
  }
  return life;
}

/** May a standby that holds this, by the pairing of A, go on holding it? */
function continues({ state }: Life, streamUuid: string | null, epoch: number | null): boolean {
  return isContinuous(state, { host: 'south', streamUuid, epoch, pairing: 'A' });
}

describe('primary/life', () => {
  it('is syncing until the first checkpoint is acknowledged', () => {
    const life = new Life();
    expect(linkStateOf(life.state)).to.equal('down');
    life.link('A');
    life.captures(0);
    expect(linkStateOf(life.state)).to.equal('syncing');
    life.acknowledges(0);
    expect(linkStateOf(life.state)).to.equal('replicating');
    life.lose('A');
    expect(linkStateOf(life.state)).to.equal('down');
    expect(life.state.lastStream).to.include({ streamUuid: 'A', captured: 0, acknowledged: 0 });
  });

  it('END is an epoch that is acknowledged, and none that was captured', () => {
    const life = replicating(2);
    life.ends(2);
    life.acknowledges(2);
    expect(life.state.stream).to.include({ captured: 1, acknowledged: 2 });
  });

  describe('continuous', () => {
    it('while nothing was let out after the epoch that the standby holds', () => {
      const life = replicating(3);
      expect(continues(life, 'A', 2)).to.equal(true);
      // Its acknowledgement was lost, it holds more than we know.
      expect(continues(life, 'A', 3)).to.equal(true);
      expect(continues(life, 'A', 1)).to.equal(false);
      expect(continues(life, 'X', 2)).to.equal(false);
      expect(continues(life, null, null)).to.equal(false);
    });

    it('over a resync that is not complete, and no longer when it is', () => {
      const life = replicating(3);
      life.isAnswered = false;
      life.lose('A');
      life.link('B', 'A');
      expect(continues(life, 'A', 2)).to.equal(true);
      life.captures(0);
      // The standby has B's first checkpoint, and we have not heard of it.
      life.lose('B');
      expect(continues(life, 'B', 0)).to.equal(true);
      life.link('C', 'A');
      life.captures(0);
      life.acknowledges(0);
      expect(continues(life, 'A', 2)).to.equal(false);
      expect(continues(life, 'B', 0)).to.equal(false);
      expect(continues(life, 'C', 0)).to.equal(true);
    });

    it('not once output has passed unprotected', () => {
      const life = replicating(1);
      life.lose('A');
      expect(continues(life, 'A', 0)).to.equal(false);
    });

    it('not by an acknowledgement that is found after a stop of the process: that let nothing out', () => {
      const life = replicating(1);
      life.captures(1);
      life.now += 60_000;
      life.acknowledges(1);
      expect(life.state.letOut.released).to.deep.equal({ streamUuid: 'A', epoch: 0 });
    });
  });

  describe('what is wrong', () => {
    it('the standby does not take our state: shown until a checkpoint is acknowledged again', () => {
      const life = replicating();
      life.lose('A', 'STATE_REFUSED', 'no such device');
      expect(life.state.error).to.deep.equal({ code: 'STATE_REFUSED', message: 'no such device' });
      life.link('B');
      life.captures(0);
      expect(life.state.error?.code).to.equal('STATE_REFUSED');
      life.acknowledges(0);
      expect(life.state.error).to.equal(null);
    });

    it('… though the saver has failed of it before the link is known to be lost', () => {
      const life = replicating();
      const end = { how: 'failed', code: 'STATE_REFUSED', message: 'the sink has failed' } as const;
      life.give({ kind: 'stream-over', streamUuid: 'A', end });
      life.lose('A', 'STATE_REFUSED', 'no such device');
      expect(life.state.error?.message).to.equal('no such device');
    });

    it('the machine has changed: shown until the next secondary is welcome, and says more than a refusal', () => {
      const life = replicating();
      life.give({ kind: 'machine-changed', message: 'devices: dice' });
      life.lose('A', 'STATE_REFUSED');
      expect(life.state.error).to.deep.equal({ code: 'MACHINE_CHANGED', message: 'devices: dice' });
      life.link('B');
      expect(life.state.error).to.equal(null);
    });

    it('the hypervisor does not answer, or the domain cannot be driven: shown for good', () => {
      const life = new Life();
      life.link('A');
      const end = { how: 'failed', code: 'HUNG', message: 'no answer' } as const;
      life.give({ kind: 'stream-over', streamUuid: 'A', end });
      expect(life.state).to.deep.include({ role: 'primary', error: { code: 'HUNG', message: 'no answer' } });
      life.give({ kind: 'domain-failed', code: 'FAILED', message: 'no start' });
      expect(life.state).to.deep.include({ role: 'failed', error: { code: 'FAILED', message: 'no start' } });
    });
  });

  it('shared disks: it may run as long as nobody else can, and its hypervisor knows', () => {
    const life = new Life({ standstill: { silenceMs: 1000 } });
    life.link('A');
    expect(life.state.exposing).to.equal(true);
    life.lose('A');
    expect(mayRun(life.state)).to.equal(true);
    life.link('B');
    life.captures(0);
    life.acknowledges(0);
    expect(mayRun(life.state)).to.equal(true);
    life.give({ kind: 'bye', streamUuid: 'B', reason: 'shutdown' });
    expect(life.state).to.include({ exposing: false, still: false });
    life.link('C');
    life.captures(0);
    life.acknowledges(0);
    life.isAnswered = false;
    life.lose('C');
    expect(life.state.still).to.equal(true);
  });
});
