import { expect } from 'chai';
import { monotonicMs } from '../../src/flow/clock.js';
import { Work } from '../../src/flow/work.js';
import type { OutputGate } from '../../src/output/gate.js';
import { OrderedGate } from '../../src/primary/ordered-gate.js';

/** A gate that tells what it is asked, and answers when it is let. */
function gate(name: string, asked: string[], answer: (what: string) => Promise<void>): OutputGate {
  const ask = (what: string) => {
    asked.push(`${name} ${what}`);
    return answer(what);
  };
  return {
    seal: (epoch) => ask(`seal ${epoch}`),
    release: (epoch) => ask(`release ${epoch}`),
    discard: () => ask('discard'),
    pass: () => ask('pass'),
    hold: () => ask('hold'),
    restart: () => ask('restart'),
    heldBytes: 1,
    emittedBytes: 2,
    releasedBytes: 3,
  };
}

describe('primary/ordered-gate', () => {
  const asked: string[] = [];
  const failures: string[] = [];
  let answer: (what: string) => Promise<void>;
  let tasks: Work;
  let ordered: OrderedGate;

  beforeEach(() => {
    asked.length = 0;
    failures.length = 0;
    answer = () => Promise.resolve();
    tasks = new Work((error, what) => failures.push(`${what}: ${error.message}`));
    const made = (name: string) => gate(name, asked, (what) => answer(what));
    ordered = new OrderedGate(made('network'), made('console'), tasks);
  });

  it('asks for one thing after another, the network sealed before and the console after', async () => {
    let go: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (go = resolve));
    answer = (what) => (what === 'hold' ? held : Promise.resolve());
    void ordered.hold();
    const sealed = ordered.sealBefore(0).then(() => ordered.sealAfter(0));
    ordered.release({ epoch: 0, untilMs: Infinity });
    await Promise.resolve();
    expect(asked).to.deep.equal(['console hold', 'network hold']);
    go();
    await sealed;
    await tasks.settled(1000);
    expect(asked.slice(2)).to.deep.equal([
      ...['network seal 0', 'console release 0', 'network release 0', 'console seal 0'],
    ]);
    expect(ordered.heldBytes).to.equal(2);
  });

  it('discards at once, whatever it is asked meanwhile', () => {
    answer = () => new Promise(() => undefined);
    void ordered.pass();
    void ordered.discard();
    expect(asked).to.deep.equal(['console discard', 'network discard']);
  });

  it('does not carry out a release when its time is over', async () => {
    ordered.release({ epoch: 0, untilMs: monotonicMs() - 1 });
    ordered.release({ epoch: 1, untilMs: monotonicMs() + 10_000 });
    await tasks.settled(1000);
    expect(asked).to.deep.equal(['console release 1', 'network release 1']);
  });

  it('says in the log what it could not do, and goes on; a seal fails for who asked for it', async () => {
    answer = () => Promise.reject(new Error('no answer'));
    await ordered.hold();
    await tasks.settled(1000);
    expect(failures).to.deep.equal(['hold output: no answer']);
    const error: unknown = await ordered.sealBefore(1).catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(Error);
    expect(failures).to.have.length(1);
    answer = () => Promise.resolve();
    await ordered.restart();
    expect(asked.slice(-2)).to.deep.equal(['console restart', 'network restart']);
  });
});
