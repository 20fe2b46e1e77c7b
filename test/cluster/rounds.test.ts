// A host dies, and another one, and comes back (see rounds.ts), a few times; ROMULUS_CLUSTER_ROUNDS says otherwise.

import { expect } from 'chai';
import { needCluster, PATIENCE_MS } from './cluster.js';
import { rounds } from './rounds.js';
import { times } from '../support/length.js';

const ROUNDS = Number(process.env['ROMULUS_CLUSTER_ROUNDS'] ?? times(3, 30));

describe('cluster: hosts die in turn', function () {
  it(`${ROUNDS} times, and come back: one connection of one client goes on`, async function () {
    const needed = await needCluster(this);
    this.timeout((ROUNDS + 2) * PATIENCE_MS);
    const { fault, rounds: done } = await rounds(needed, {
      rounds: ROUNDS,
      say: (text) => console.log(text.replaceAll(/^/gm, '      ')),
    });
    expect(fault).to.equal(null);
    expect(done.length).to.equal(ROUNDS);
  });
});
