//! What a descriptor in the supervisor's epoll is, in the 64 bits that the kernel keeps of it.

use crate::job::Channel;
use crate::message::Side;

const COPY: u64 = 1 << 61;
const CLIENT: u64 = 1 << 62;
const STREAM: u64 = 1 << 63;

/// What the loop is woken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A connection waits.
    Listener,
    /// wshd says something.
    Init,
    /// wshd has ended.
    InitEnded,
    /// A client says something, or can be told more.
    Client(u64),
    /// A helper of a copy says something.
    Copy(u32, Side),
    /// A pipe of a job holds something.
    Stream(u32, Channel),
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        match token {
            Token::Listener => 0,
            Token::Init => 1,
            Token::InitEnded => 2,
            Token::Client(number) => CLIENT | number,
            Token::Copy(copy, side) => COPY | u64::from(copy) << 1 | side as u64,
            Token::Stream(job, channel) => STREAM | u64::from(job) << 1 | channel as u64,
        }
    }
}

impl From<u64> for Token {
    fn from(bits: u64) -> Self {
        match bits {
            0 => Self::Listener,
            1 => Self::Init,
            2 => Self::InitEnded,
            bits if bits & STREAM != 0 => {
                let channel = if bits & 1 == 0 { Channel::Stdout } else { Channel::Stderr };
                Self::Stream((bits >> 1) as u32, channel)
            }
            bits if bits & CLIENT != 0 => Self::Client(bits & !CLIENT),
            bits => {
                let side = if bits & 1 == Side::Inside as u64 { Side::Inside } else { Side::Outside };
                Self::Copy((bits >> 1) as u32, side)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let streams =
            [0, 1, u32::MAX].into_iter().flat_map(|job| Channel::BOTH.map(|c| Token::Stream(job, c)));
        let copies = [0, 1, u32::MAX]
            .into_iter()
            .flat_map(|copy| [Side::Inside, Side::Outside].map(|s| Token::Copy(copy, s)));
        let others =
            [Token::Listener, Token::Init, Token::InitEnded, Token::Client(0), Token::Client(1 << 40)];
        for token in streams.chain(copies).chain(others) {
            assert_eq!(Token::from(u64::from(token)), token);
        }
    }
}
