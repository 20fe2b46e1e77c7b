// Whoever judges what the world has heard finds what is wrong with it.

import { expect } from 'chai';
import { contradiction, speechesOf } from './outside.js';
import { twoCanTalk } from './situation.js';

const heard = (text: string) => speechesOf(Array.from(text, (host, atMs) => ({ host, atMs })));

describe('cluster: the judge of what is heard', () => {
  it('lets owners speak one after another, and be silent', () => {
    expect(contradiction(heard('aaabb'), ['a', 'b'])).to.equal(null);
    expect(contradiction(heard('aaac'), ['a', 'b', 'c'])).to.equal(null);
    expect(contradiction(heard('abba'), ['a', 'b', 'a'])).to.equal(null);
    expect(contradiction(heard(''), ['a'])).to.equal(null);
  });

  it('finds one who speaks once more after another, or never owned it', () => {
    expect(contradiction(heard('aabba'), ['a', 'b'])).to.match(/^a speaks out of turn: /);
    expect(contradiction(heard('abab'), ['a', 'b', 'a'])).to.match(/^b speaks out of turn: /);
    expect(contradiction(heard('ac'), ['a', 'b'])).to.match(/^c speaks out of turn: /);
  });

  it('knows who can talk', () => {
    expect(twoCanTalk(['owner>standby', 'owner>witness'])).to.equal(true);
    expect(twoCanTalk(['owner-standby', 'slow'])).to.equal(true);
    expect(twoCanTalk(['standby>owner', 'stopped'])).to.equal(false);
    expect(twoCanTalk(['owner>standby', 'witness>owner', 'standby>witness'])).to.equal(false);
  });
});
